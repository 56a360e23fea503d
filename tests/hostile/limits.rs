//! Files in which every part is allowed, and all together would take long or much memory: how many
//! things a file may hold is bounded for each of them.

use super::archive::{Member, archive, npy};
use super::refusal::{refused, refused_bytes};
use super::safetensors::valid;
use super::torch::{Pickle, zip, zip_of};
use super::writer::{File, Tensor, array, text};

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn tensors_and_dimensions_of_safetensors() {
    let entry = |i: usize| format!(r#""{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let of = |count: usize| {
        safetensors(&format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(",")), &[])
    };
    refused_bytes("model.safetensors", &of(131_073), "more than 131072 entries");
    // As many as are allowed (all of them empty).
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), of(131_072)).unwrap();
    let checkpoint = evenkeel::Checkpoint::open(dir.path(), &evenkeel::OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.tensors().len(), 131_072);
    let of = |dims: usize| {
        let dims = vec!["1"; dims].join(",");
        safetensors(&format!(r#"{{"a":{{"dtype":"F32","shape":[{dims}],"data_offsets":[0,4]}}}}"#), &[0; 4])
    };
    refused_bytes("model.safetensors", &of(65), "`a`: more than 64 dimensions");
    refused_bytes("model.safetensors", &of(10_000_000), "more than 64 dimensions");
    let long = safetensors(&" ".repeat((1 << 25) + 1), &[]);
    refused_bytes("model.safetensors", &long, "its header of 33554433 bytes is longer than 33554432");
    let metadata: Vec<String> = (0..262_145).map(|i| format!(r#""{i:x}":"""#)).collect();
    let header = format!(r#"{{"__metadata__":{{{}}}}}"#, metadata.join(","));
    refused_bytes(
        "model.safetensors",
        &safetensors(&header, &[]),
        "`__metadata__`: more than 262144 entries",
    );
}

#[test]
fn entries_of_an_index_and_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("1.safetensors", &valid(&[("a.weight", &[2, 2])]));
    let map: Vec<String> = (0..262_145).map(|i| format!(r#""{i:x}":"1.safetensors""#)).collect();
    let index = dir.path().join("model.safetensors.index.json");
    write("model.safetensors.index.json", format!(r#"{{"weight_map":{{{}}}}}"#, map.join(",")).as_bytes());
    refused(&index, "more than 262144 entries");
    write("model.safetensors.index.json", &vec![b' '; (1 << 25) + 1]);
    refused(&index, "no regular file of at most 33554432 bytes");
    std::fs::remove_file(&index).unwrap();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let inner =
            if open == "[" { "0,".repeat(300_000) + "0" } else { format!("[{}0]", "{},".repeat(150_000)) };
        write("config.json", format!("{{\"a\":{open}{inner}{close}}}").as_bytes());
        super::refusal::refused_with(&[], dir.path(), "config.json", "it holds more than 262144 values");
    }
}

#[test]
fn metadata_and_names_of_gguf() {
    // Arrays of bytes take eight times as much when they are kept as numbers.
    let keys: Vec<String> = (0..2100).map(|i| format!("k{i}")).collect();
    let bytes = array(0, 1024, &[1; 1024]);
    let metadata = keys.iter().map(|key| (key.as_str(), bytes.clone())).collect();
    let (whole, _) = File::new(metadata, vec![Tensor::zeros("a", &[2, 2])]).write();
    refused_bytes("model.gguf", &whole, "its metadata up to the key `k2046` at byte");
    let names: Vec<String> = (0..257).map(|i| format!("{i:0>65535}")).collect();
    let tensors = names.iter().map(|name| Tensor::zeros(name, &[1])).collect();
    let (whole, _) = File::new(vec![("general.architecture", text("llama"))], tensors).write();
    refused_bytes("model.gguf", &whole, "the names of its tensors, up to byte");
}

#[test]
fn members_of_archives() {
    // The end of a directory of 200,000 members, which is not even there.
    let count = 200_000u64.to_le_bytes();
    let end64 = [
        &b"PK\x03\x04PK\x06\x06"[..],
        &44u64.to_le_bytes(),
        &[45, 0, 45, 0],
        &[0; 8],
        &count,
        &count,
        &[0; 8],
        &4u64.to_le_bytes(),
    ]
    .concat();
    let locator = [&b"PK\x06\x07"[..], &[0; 4], &4u64.to_le_bytes(), &[1, 0, 0, 0]].concat();
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0, 0]].concat();
    let whole = [end64, locator, end].concat();
    refused_bytes("arrays.npz", &whole, "it has 200000 members, more than 131072");
    // A deflated member that gives nothing for a long time: empty blocks, of which each is five bytes.
    let empty = [0, 0, 0, 0xff, 0xff].repeat(1 << 20);
    let mut member =
        Member::deflated("a.npy", &npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", &[0; 4]));
    member.data = [empty, member.data].concat();
    refused_bytes(
        "arrays.npz",
        &archive(&[member]),
        "the array `a`: it does not begin as a NumPy array does",
    );
}

/// A pickle's values, its memo, and a mapping's entries.
#[test]
fn values_of_pickles() {
    let refused_pickle =
        |pickle: Pickle, part: &str| refused_bytes("model.pt", &zip_of(&pickle.stop()), part);
    let tensor = || Pickle::new().tensor(("FloatStorage", "0", 64), 0, &[8, 8], &[8, 1]).raw(b"q\x01");
    let most = "its pickle holds values that take more than 33554432 bytes";
    let one = Pickle::new().text(&"x".repeat(60)).raw(b"0").0[2..].to_vec();
    refused_pickle(Pickle::new().raw(&one.repeat(400_000)), most);
    let pairs = [&b"("[..], &b"NN".repeat(500_000), b"u"].concat();
    refused_pickle(Pickle::new().raw(b"}").raw(&pairs.repeat(5)), most);
    let (list, more) = (Pickle::new().raw(b"]"), [&b"("[..], &b"N".repeat(1_000_000), b"e"].concat());
    refused_pickle(list.raw(&more.repeat(5)), most);
    // One tensor, or one empty mapping, under very many keys.
    let many = |of: &[u8]| tensor().raw(b"0}q\x02}(").raw(&of.repeat(200_000)).raw(b"u");
    refused_pickle(many(b"h\x01h\x01"), "it holds more than 131072 names");
    refused_pickle(many(b"h\x02h\x02"), "it holds no tensors");
    let beside = tensor().raw(b"0}q\x02}(").text("model").raw(b"}(").text("w").raw(b"h\x01u");
    refused_pickle(
        beside.raw(&b"NN".repeat(200_000)).raw(&b"h\x01h\x01".repeat(200_000)).raw(b"u"),
        "it holds more than 131072 names",
    );
    // The same arguments again and again, which are checked once.
    let call = Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b"q\x03").raw(b"(");
    let call =
        call.storage("FloatStorage", "0", 64).int(0).ints(&[1; 64]).ints(&[1; 64]).raw(b"\x89Ntq\x04R0");
    refused_pickle(call.raw(&b"h\x03h\x04R0".repeat(400_000)).raw(b"N"), "it holds no tensors");
    // A number of the memo that nobody counts up to.
    let far = Pickle::new().raw(b"Nr\xff\xff\xff\x7f");
    refused_pickle(far, "its pickle remembers more than 2097152 values, before byte");
    // Very many small storages of a legacy file: the file is read once, not once for each.
    let storages = 50_000;
    let mut object = Pickle::new().raw(b"]");
    let mut keys: Vec<String> = Vec::new();
    for i in 0..storages {
        keys.push(i.to_string());
        object = object.storage("FloatStorage", &i.to_string(), 1).raw(b"0");
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let data = super::torch::legacy_storage(1, &[0; 4]).repeat(storages);
    refused_bytes("model.pt", &super::torch::legacy(&object.stop(), &keys, &data), "");
    // A whole archive of storages that nothing names is no model, but no work either.
    let names: Vec<String> = (0..20_000).map(|i| format!("a/data/{i}")).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", b"\x80\x02N.")];
    entries.extend(names.iter().map(|name| (name.as_str(), &[][..])));
    refused_bytes("model.pt", &zip(&entries), "it holds no tensors");
}
