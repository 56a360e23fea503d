//! Whole pictures, from logs that were written by hand.

use serde_json::{Value, json};

use super::*;

const STEPS: usize = 40;

/// A log of two units whose gain rises once; `change` has the last word on every record.
fn log(change: impl Fn(usize, &mut Value)) -> String {
    let record = |step: usize| {
        let part = step as f64 / STEPS as f64;
        let gain = if step > 20 { 2.0 } else { 1.25 };
        let mut record = json!({
            "step": step, "loss": 0.7 - 0.4 * part, "gain": [gain, gain], "alpha_std": 0.05 - 0.01 * part,
            "alphas": [3.0 + part, 4.0 - part], "rates": [1e-5 * (1.01 - part), 3e-5 * (1.01 - part)],
            "scores": if step.is_multiple_of(10) { json!([["accuracy", 0.5 + 0.3 * part]]) } else { json!([]) },
            "notes": [],
        });
        change(step, &mut record);
        format!("{record}\n")
    };
    (1..=STEPS).map(record).collect()
}

fn picture(log: &str, title: &str, units: [&str; 2], target: Option<f64>) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log.jsonl"), log).unwrap();
    let heading = Heading {
        title,
        units: &units.map(str::to_owned),
        before: &[("accuracy".to_owned(), 0.5)],
        start_std: Some(0.05),
        target_std: target,
        steps_per_epoch: 10,
    };
    draw(directory.path(), &heading).unwrap();
    assert!(!directory.path().join("run.svg.partial").exists());
    std::fs::read_to_string(directory.path().join(PICTURE)).unwrap()
}

/// The points of all polylines of a colour, in the order of the picture.
fn polylines(svg: &str, colour: &str) -> Vec<Vec<(f64, f64)>> {
    let colour = format!("stroke=\"{colour}\"");
    let lines = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains(&colour));
    let points = |line: &str| {
        let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let pair = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse::<f64>().unwrap(), y.parse::<f64>().unwrap())
        };
        points.split_whitespace().map(pair).collect()
    };
    lines.map(points).collect()
}

const FIRST_UNIT: &str = "#440154";

#[test]
fn every_line_has_its_points_where_the_values_are() {
    let svg = picture(&log(|_, _| ()), "minilm", ["layer.0", "layer.1"], Some(0.045));
    // Alpha and rate of a unit, and two samples in the legends.
    let of_unit = polylines(&svg, FIRST_UNIT);
    let drawn: Vec<_> = of_unit.iter().filter(|points| points.len() > 2).collect();
    assert_eq!((of_unit.len(), drawn.len()), (4, 2));
    for line in &drawn {
        assert_eq!(line.len(), STEPS);
        assert!(line.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
    // Alpha rises, and y counts downwards; the rate falls.
    assert!(drawn[0].windows(2).all(|pair| pair[0].1 >= pair[1].1));
    assert!(drawn[1].windows(2).all(|pair| pair[0].1 <= pair[1].1));
    for title in ["loss", "evaluation", "alpha", "alpha STD", "gain s", "learning rate", "target 0.0450"] {
        assert!(svg.contains(&format!("\n{title}\n")), "{title}");
    }
    assert!(svg.contains("alpha STD 0.0500 → 0.0400 (-20.0 %)"));
    assert!(svg.contains("accuracy 0.5000 → 0.8000"));
    // Nothing lies outside.
    for (x, y) in of_unit.into_iter().flatten() {
        assert!((0.0..=8800.0).contains(&x) && (0.0..=12000.0).contains(&y), "{x} {y}");
    }
}

#[test]
fn what_is_not_there_has_no_panel() {
    let still = |_: usize, record: &mut Value| {
        record["gain"] = json!([1.0, 1.0]);
        record["alphas"] = json!([null, null]);
        record["alpha_std"] = Value::Null;
    };
    let svg = picture(&log(still), "minilm", ["layer.0", "layer.1"], None);
    for title in ["alpha", "alpha STD", "gain s"] {
        assert!(!svg.contains(&format!("\n{title}\n")), "{title}");
    }
    assert!(!svg.contains("target"));
    assert_eq!(polylines(&svg, FIRST_UNIT).len(), 2);
}

#[test]
fn values_that_are_none_leave_gaps() {
    let holes = |step: usize, record: &mut Value| {
        if step == 15 {
            record["alphas"][0] = Value::Null;
            record["loss"] = Value::Null;
            record["rates"][0] = json!(0.0);
        }
    };
    let svg = picture(&log(holes), "minilm", ["layer.0", "layer.1"], None);
    let lengths: Vec<usize> = polylines(&svg, FIRST_UNIT).iter().map(Vec::len).collect();
    // The rate of nothing is drawn at the edge; alpha's line is broken. Legends have two points each.
    assert_eq!(lengths, [14, STEPS - 15, 2, STEPS, 2]);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn names_cannot_break_the_picture() {
    let names = ["</text><script>alert(1)</script>", "a\u{1b}\u{202e}&\"<"];
    let svg = picture(&log(|_, _| ()), "\u{0}<svg>&'", names, None);
    assert_eq!(svg.matches("<svg").count(), 1);
    assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;"));
    assert!(svg.chars().all(|c| c == '\n' || !c.is_control()) && !svg.contains('\u{202e}'));
    assert!(svg.ends_with("</svg>\n"));
}

#[test]
fn a_log_that_was_cut_short_is_drawn_as_far_as_it_goes() {
    let mut text = log(|_, _| ());
    text.truncate(text.len() - 20);
    let svg = picture(&text, "minilm", ["layer.0", "layer.1"], None);
    assert!(polylines(&svg, FIRST_UNIT).iter().any(|points| points.len() == STEPS - 1));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log.jsonl"), "").unwrap();
    let heading =
        Heading { title: "", units: &[], before: &[], start_std: None, target_std: None, steps_per_epoch: 0 };
    draw(directory.path(), &heading).unwrap();
    assert!(!directory.path().join(PICTURE).exists());
}
