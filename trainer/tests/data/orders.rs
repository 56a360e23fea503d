//! Random choices against the same generator written in Python: they may never change, or a run that was
//! interrupted would go on with other data.

use evenkeel_trainer::data::Targets;
use evenkeel_trainer::data::subset::{Choice, choose, hold_back};
use evenkeel_trainer::random::order;
use serde_json::Value;

use crate::{expected, numbers};

fn count(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn rows(value: &Value) -> Vec<usize> {
    numbers(value, |n| Some(n.as_u64()? as usize))
}

#[test]
fn orders_of_epochs_are_fixed() {
    for case in expected("orders.json")["epochs"].as_array().unwrap() {
        let seed = case["seed"].as_str().unwrap().parse().unwrap();
        let found = order(count(&case["examples"]), seed, case["epoch"].as_u64().unwrap());
        assert_eq!(found, rows(&case["order"]), "{case}");
    }
}

#[test]
fn parts_of_the_data_are_fixed() {
    let expected = expected("orders.json");
    let case = &expected["random_subset"];
    let seed = case["seed"].as_u64().unwrap();
    let targets = |case: &Value| Targets::Values(vec![0.0; count(&case["examples"])]);
    let found = choose(&targets(case), case["ratio"].as_f64().unwrap(), Choice::Random, seed);
    assert_eq!(found.unwrap(), rows(&case["rows"]));
    let case = &expected["held_back"];
    let seed = case["seed"].as_u64().unwrap();
    let (rest, held) = hold_back(&targets(case), case["fraction"].as_f64().unwrap(), seed).unwrap();
    assert_eq!(held, rows(&case["rows"]));
    assert_eq!(rest.len() + held.len(), count(&case["examples"]));
    assert!(rest.iter().all(|row| !held.contains(row)));
}
