//! What is missing or contradicts itself: skipped with the reason, never guessed.

use evenkeel::report::Report;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::matrix;
use crate::editable::{Editable, MODULE};

/// Without its scale an int8 matrix looks 10⁵ times too large: it is skipped, never read as it is.
#[test]
fn integers_without_their_scales_are_never_read() {
    let whole = Editable::load("bitsandbytes-8bit");
    let norm = |report: &Report| matrix(report, &format!("{MODULE}.weight")).metric("lambda_max").unwrap();
    assert!(norm(&whole.report()) < 1.0);
    whole.without("SCB").skipped("q_proj.weight", "packed integers (I8)");
    Editable::load("compressed-int8")
        .without("q_proj.weight_scale")
        .skipped("q_proj.weight", "packed integers");
}

#[test]
fn what_is_missing_is_named() {
    let gptq = || Editable::load("gptq-4bit");
    gptq().without("scales").skipped("qweight", "without its scales");
    gptq().without("qzeros").skipped("qweight", "without its zero points");
    let mut unknown = gptq();
    unknown.config = json!({"model_type": "llama"});
    unknown.skipped("qweight", "GPTQ or AWQ is not known");
    Editable::load("awq").without("qzeros").skipped("qweight", "without its zero points");
    Editable::load("gpt-oss").without("down_proj_scales").skipped("down_proj_blocks", "without its scales");
    let packed = || Editable::load("compressed-packed");
    packed().without("q_proj.weight_scale").skipped("q_proj.weight_packed", "without its scales");
    packed().without("q_proj.weight_shape").skipped("q_proj.weight_packed", "without its weight_shape");
    let four = || Editable::load("bitsandbytes-4bit");
    four()
        .without("q_proj.weight.quant_state.bitsandbytes__nf4")
        .skipped("q_proj.weight", "without its quant_state");
    four().without("q_proj.weight.absmax").skipped("q_proj.weight", "without its absmax");
    four().without("k_proj.weight.nested_absmax").skipped("k_proj.weight", "without its nested_absmax");
    let micro = || Editable::load("compressed-microscaled");
    micro()
        .without("q_proj.weight_global_scale")
        .skipped("q_proj.weight_packed", "without its weight_global_scale");
    Editable::load("deepseek-fp8").without("weight_scale_inv").tensors.keys().for_each(|name| {
        assert!(name.ends_with("gate_proj.weight"));
    });
    let report = Editable::load("deepseek-fp8").without("weight_scale_inv").report();
    assert!(report.matrices.is_empty() && report.skipped[0].reason.contains("--assume-unscaled"));
}

#[test]
fn what_contradicts_itself_is_named() {
    let gptq = || Editable::load("gptq-4bit-ordered");
    gptq().set("scales", Dtype::F16, &[3, 63]).skipped("qweight", "do not fit");
    gptq().set("scales", Dtype::U8, &[3, 64]).skipped("qweight", "of the type U8");
    gptq().set("qzeros", Dtype::I32, &[3, 9]).skipped("qweight", "do not fit");
    gptq().set("qweight", Dtype::I32, &[768]).skipped("qweight", "do not fit");
    gptq().set("qweight", Dtype::F32, &[12, 64]).skipped("qweight", "do not fit");
    gptq().configured("bits", json!(8)).skipped("qweight", "do not fit");
    gptq().configured("bits", json!(5)).skipped("qweight", "do not fit");
    gptq().set("g_idx", Dtype::I32, &[95]).skipped("qweight", "does not fit 96 inputs");
    gptq().set("g_idx", Dtype::I64, &[96]).skipped("qweight", "does not fit 96 inputs");
    // 0x01010101 groups.
    gptq().set("g_idx", Dtype::I32, &[96]).skipped("qweight", "puts input 0 outside of its 3 groups");
    let mut negative = gptq();
    negative.get("g_idx").2[4..8].fill(0xff);
    negative.skipped("qweight", "puts input 1 outside");
    let neighbours = || Editable::load("gptq-4bit");
    neighbours().configured("group_size", json!(64)).skipped("qweight", "do not make 3 rows");
    neighbours().configured("group_size", json!(0)).skipped("qweight", "neither g_idx nor a group_size");
    neighbours().configured("group_size", json!("x")).skipped("qweight", "neither g_idx nor a group_size");
    let awq = || Editable::load("awq");
    awq().configured("group_size", json!(16)).skipped("qweight", "do not make 3 rows");
    awq().configured("bits", json!(8)).skipped("qweight", "in 8 bits");
    awq().set("scales", Dtype::F16, &[3, 72]).skipped("qweight", "do not fit");
    // Taken for the other layout, neither fits.
    awq().configured("quant_method", json!("gptq")).skipped("qweight", "do not fit");
    neighbours().configured("quant_method", json!("awq")).skipped("qweight", "do not fit");
    let fp8 = || Editable::load("deepseek-fp8");
    fp8()
        .set("_scale_inv", Dtype::F32, &[3, 2])
        .skipped("gate_proj.weight", "of shape 3×2 do not fit its shape 160×136");
    fp8().set("_scale_inv", Dtype::I32, &[2, 2]).skipped("gate_proj.weight", "of the type I32");
    fp8().configured("weight_block_size", json!([64, 64])).skipped("gate_proj.weight", "do not fit");
    let oss = || Editable::load("gpt-oss");
    oss().set("down_proj_scales", Dtype::U8, &[2, 64, 3]).skipped("down_proj_blocks", "one for every 32");
    oss().set("down_proj_scales", Dtype::F16, &[2, 64, 2]).skipped("down_proj_blocks", "of the type F16");
    let eight = || Editable::load("bitsandbytes-8bit");
    eight().set("SCB", Dtype::F32, &[63]).skipped("q_proj.weight", "for each of 64 rows");
    eight().set("weight_format", Dtype::U8, &[]).skipped("q_proj.weight", "order of elements");
}

#[test]
fn compressed_tensors_that_contradict_themselves() {
    let packed = || Editable::load("compressed-packed");
    let shape = |sides: [i64; 2]| {
        let mut changed = packed();
        changed.get("q_proj.weight_shape").2 = sides.iter().flat_map(|side| side.to_le_bytes()).collect();
        changed
    };
    shape([64, 97]).skipped("q_proj.weight_packed", "do not fit the shape 64×97");
    shape([63, 96]).skipped("q_proj.weight_packed", "do not fit the shape 63×96");
    shape([-1, 96]).skipped("q_proj.weight_packed", "no shape of two dimensions");
    shape([i64::MAX, i64::MAX]).skipped("q_proj.weight_packed", "no shape of two dimensions");
    shape([0, 0]).skipped("q_proj.weight_packed", "no shape of two dimensions");
    packed().set("q_proj.weight_shape", Dtype::F32, &[2]).skipped("q_proj.weight_packed", "no shape");
    packed().set("q_proj.weight_scale", Dtype::BF16, &[64, 5]).skipped("q_proj.weight_packed", "do not fit");
    packed()
        .set("q_proj.weight_scale", Dtype::BF16, &[64, 4])
        .skipped("q_proj.weight_packed", "groups of 24");
    packed()
        .set("k_proj.weight_zero_point", Dtype::I32, &[4, 3])
        .skipped("k_proj.weight_packed", "zero points");
    packed().set("q_proj.weight_packed", Dtype::I32, &[64, 9]).skipped("q_proj.weight_packed", "do not fit");
    let ordered = || Editable::load("compressed-ordered");
    ordered().set("weight_g_idx", Dtype::I32, &[9]).skipped("weight_packed", "does not fit");
    ordered().set("weight_g_idx", Dtype::I32, &[96]).skipped("weight_packed", "puts input 0 outside");
    // −1 stands for no order at all.
    let mut none = ordered();
    none.get("weight_g_idx").2.fill(0xff);
    assert_eq!(none.report().matrices[0].status, "ok");
    assert_eq!(
        none.report().matrices[0].metrics,
        ordered().without("weight_g_idx").report().matrices[0].metrics
    );
    let eight = || Editable::load("compressed-int8");
    eight().set("v_proj.weight_zero_point", Dtype::I32, &[32, 1]).skipped("v_proj.weight", "zero points");
    eight().set("q_proj.weight_scale", Dtype::BF16, &[7]).skipped("q_proj.weight", "do not fit");
    let micro = || Editable::load("compressed-microscaled");
    micro()
        .set("q_proj.weight_scale", Dtype::F8_E4M3, &[32, 5])
        .skipped("q_proj.weight_packed", "every 16 of 32×96");
    micro()
        .set("q_proj.weight_global_scale", Dtype::F32, &[2])
        .skipped("q_proj.weight_packed", "no single F32");
    micro()
        .set("q_proj.weight_scale", Dtype::F32, &[32, 6])
        .skipped("q_proj.weight_packed", "of the type F32");
}

/// A quant_state is JSON out of a file: anything may stand there.
#[test]
fn quant_states_that_say_nothing() {
    let part = "q_proj.weight.quant_state.bitsandbytes__nf4";
    let known = json!({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [64, 128]});
    let with = |text: &str| {
        let mut changed = Editable::load("bitsandbytes-4bit");
        *changed.get(part) = (Dtype::U8, vec![text.len()], text.as_bytes().to_vec());
        changed
    };
    let entry = |key: &str, value: Value| {
        let mut state = known.clone();
        state[key] = value;
        with(&state.to_string())
    };
    assert_eq!(with(&known.to_string()).report().matrices.len(), 4);
    let deep = "[".repeat(60_000);
    for text in ["", "{", "[]", "null", "{}", &deep, r#"{"quant_type":"nf4","quant_type":"nf4"}"#] {
        with(text).skipped("q_proj.weight", "does not say how");
    }
    with(&" ".repeat(70_000)).skipped("q_proj.weight", "no text");
    entry("quant_type", json!("fp4")).skipped("q_proj.weight", "says `fp4`");
    entry("dtype", json!("\u{1b}[2J")).skipped("q_proj.weight", "the type `\\u{1b}[2J`");
    entry("blocksize", json!(0)).skipped("q_proj.weight", "does not fit 4096 bytes");
    entry("blocksize", json!(63)).skipped("q_proj.weight", "does not fit 4096 bytes");
    entry("blocksize", json!(128)).skipped("q_proj.weight", "for each of 64 blocks");
    entry("blocksize", json!(-1)).skipped("q_proj.weight", "does not say how");
    entry("shape", json!([64, 129])).skipped("q_proj.weight", "does not fit 4096 bytes");
    entry("shape", json!([1u64 << 33, 1u64 << 33])).skipped("q_proj.weight", "does not fit 4096 bytes");
    entry("shape", json!([])).skipped("q_proj.weight", "does not fit 4096 bytes");
    let other = Editable::load("bitsandbytes-4bit").set("q_proj.weight.quant_map", Dtype::F32, &[16]);
    other.skipped("q_proj.weight", "not that of NF4");
    let nested = "k_proj.weight.quant_state.bitsandbytes__nf4";
    let mut changed = Editable::load("bitsandbytes-4bit");
    let text = std::str::from_utf8(&changed.get(nested).2)
        .unwrap()
        .replace("\"nested_blocksize\": 256", "\"nested_blocksize\": 0");
    *changed.get(nested) = (Dtype::U8, vec![text.len()], text.into_bytes());
    changed.skipped("k_proj.weight", "lacks nested_blocksize");
    let nested = Editable::load("bitsandbytes-4bit").set("k_proj.weight.nested_absmax", Dtype::F32, &[9]);
    nested.skipped("k_proj.weight", "do not fit");
}

/// A method of its own is named, and nothing in its modules is taken for a weight.
#[test]
fn methods_that_are_not_read_are_named() {
    let hqq = Editable::load("gptq-4bit").configured("quant_method", json!("hqq"));
    hqq.skipped("qweight", "`hqq`");
    assert!(hqq.report().matrices.is_empty());
    Editable::load("gptq-4bit")
        .configured("checkpoint_format", json!("marlin"))
        .skipped("qweight", "`marlin`");
    Editable::load("awq").configured("version", json!("gemv")).skipped("qweight", "`gemv`");
}

/// Two zero-point conventions: one step of the scale apart, so that the wrong one is a wrong matrix.
#[test]
fn the_version_of_gptq_counts() {
    let norm = |format: &str| {
        let changed = Editable::load("gptq-4bit").configured("checkpoint_format", json!(format));
        changed.report().matrices[0].metric("frobenius_norm").unwrap()
    };
    assert!((norm("gptq") / norm("gptq_v2") - 1.0).abs() > 0.01);
}

/// 0 less one has no place in a field: tools read it as 0, as 2^bits, or spoil its neighbours.
#[test]
fn zero_points_that_tools_read_differently_are_not_read() {
    let by_words = || Editable::load("gptq-4bit");
    assert_eq!(by_words().report().matrices.len(), 1);
    let why = "is the largest integer, which readers of GPTQ's first version take for 0 or for 16";
    by_words().configured("meta", json!(null)).skipped("qweight", why);
    by_words().configured("meta", json!({"quantizer": "auto_gptq:0.7.1"})).skipped("qweight", why);
    by_words().configured("meta", json!({"quantizer": ["gptqmodel:2", "other"]})).skipped("qweight", why);
    // The second version stores them as they are.
    let second = by_words().configured("meta", json!(null)).configured("checkpoint_format", json!("gptq_v2"));
    assert_eq!(second.report().matrices.len(), 1);
    let mut across = Editable::load("gptq-3bit");
    across.get("qzeros").2[3..5].fill(0xff);
    across.skipped("qweight", "take for 0 or for 8");
}

#[test]
fn an_order_of_inputs_without_its_groups_is_not_guessed() {
    Editable::load("gptq-4bit-ordered").without("g_idx").skipped("qweight", "desc_act");
}

#[test]
fn modelopt_is_not_taken_for_another_tool() {
    let modelopt = || Editable::load("modelopt");
    // ComfyUI has other orders under the same names and shapes.
    let mut unknown = modelopt();
    unknown.config = json!({"model_type": "llama"});
    unknown.skipped("q_proj.weight", "config.json does not say how");
    unknown.skipped("k_proj.weight", "config.json does not say how");
    modelopt().configured("quant_method", json!("comfy")).skipped("q_proj.weight", "`comfy`");
    modelopt().without("weight_scale_2").skipped("q_proj.weight", "without its weight_scale_2");
    modelopt().set("weight_scale_2", Dtype::F32, &[2]).skipped("q_proj.weight", "no single F32");
    modelopt().set("weight_scale_2", Dtype::F16, &[]).skipped("q_proj.weight", "no single F32");
    modelopt().with("pre_quant_scale", Dtype::BF16, &[96]).skipped("q_proj.weight", "pre_quant_scale");
    modelopt().set("q_proj.weight_scale", Dtype::F8_E4M3, &[64, 3]).skipped("q_proj.weight", "every 16");
    modelopt().set("q_proj.weight_scale", Dtype::BF16, &[64, 6]).skipped("q_proj.weight", "type BF16");
    let other = json!({"a": {"weights": {"group_size": 64}}});
    modelopt().configured("config_groups", other).skipped("q_proj.weight", "no groups of 16");
    let scaled = Editable::load("compressed-int8").with("pre_quant_scale", Dtype::BF16, &[96]);
    scaled.skipped("q_proj.weight", "pre_quant_scale");
}

#[test]
fn widths_that_could_be_several_are_not_guessed() {
    let packed = || Editable::load("compressed-packed").configured("config_groups", json!(null));
    assert!(packed().report().matrices.iter().any(|m| m.dtype.starts_with("INT4")));
    packed().skipped("o_proj.weight_packed", "several possible widths");
}

/// Under a method that is not known nothing is read, not even what has a familiar look.
#[test]
fn familiar_names_under_an_unknown_method_are_not_read() {
    let other = Editable::load("compressed-int8").configured("quant_method", json!("new"));
    other.skipped("q_proj.weight", "`new`");
    assert!(other.report().matrices.is_empty());
}

/// Scales of the inputs, or under a name that is not known, say that the weight has some, too.
#[test]
fn floats_beside_unknown_scales_are_not_taken_for_casts() {
    let why = "beside scales that are not known to be theirs";
    let scaled = || Editable::load("scaled-fp8").without("q_proj.scale_weight");
    scaled().skipped("q_proj.weight", why);
    scaled().without("q_proj.scale_input").with("my_scales", Dtype::F32, &[1]).skipped("q_proj.weight", why);
    let report = scaled().without("q_proj.scale_input").report();
    assert!(report.skipped.iter().any(|s| s.reason.contains("--assume-unscaled")));
    // Mistral's name.
    let mut renamed = Editable::load("scaled-fp8");
    let scale = renamed.tensors.remove(&format!("{MODULE}.scale_weight")).unwrap();
    renamed.tensors.insert(format!("{MODULE}.qscale_weight"), scale);
    let metrics = |report: &Report| matrix(report, &format!("{MODULE}.weight")).metrics.clone();
    assert_eq!(metrics(&renamed.report()), metrics(&Editable::load("scaled-fp8").report()));
}

/// Pairs of 4-bit floats in I8 are no 8-bit integers, and the other way round.
#[test]
fn integers_are_not_taken_for_pairs_of_floats() {
    let experts = || Editable::load("deepseek-v4");
    experts().set("w1.scale", Dtype::F32, &[48, 4]).skipped("w1.weight", "type F32");
    experts().set("w1.scale", Dtype::F8_E8M0, &[48, 2]).skipped("w1.weight", "every 32");
    experts().configured("quant_method", json!("bitsandbytes")).skipped("w1.weight", "packed integers (I8)");
    experts().without("w1.scale").skipped("w1.weight", "packed integers (I8)");
}
