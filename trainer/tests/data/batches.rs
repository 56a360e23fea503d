//! Batches as tensors.

use std::path::Path;

use evenkeel_trainer::data::{Cell, Column, Columns, Examples, Table, Targets, TextTokenizer, Tokens};
use tch::{Device, Kind, Tensor};

use crate::fixture;

fn tokens(texts: &[&str], pairs: Option<&[&str]>) -> (Tokens, u32) {
    let columns = Columns {
        text: Column::new("text"),
        pair: pairs.map(|_| Column::new("pair")),
        label: Column::new("label"),
        header: None,
    };
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let mut table = Table::new(Path::new("texts.jsonl"), &columns);
    table.texts = own(texts);
    table.pairs = pairs.map(own);
    table.labels = vec![Cell::Null; texts.len()];
    let tokenizer = TextTokenizer::open(&fixture("trainer/data/roberta")).unwrap();
    (tokenizer.tokenise(&table, 16).unwrap(), tokenizer.pad())
}

fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    assert_eq!(tensor.kind(), Kind::Int64);
    Vec::<Vec<i64>>::try_from(tensor).unwrap()
}

#[test]
fn rows_are_filled_up_to_the_longest() {
    let (tokens, pad) = tokens(&["the", "the dog and the fox", "and the"], None);
    let examples = Examples::new(tokens, Targets::Classes(vec![0, 1, 2]), pad).unwrap();
    let batch = examples.batch(&[2, 0], Device::Cpu).unwrap();
    let (short, long) = (examples.tokens().ids(0), examples.tokens().ids(2));
    assert!(short.len() < long.len());
    let (ids, mask) = (rows(&batch.ids), rows(batch.mask.as_ref().unwrap()));
    assert_eq!(ids[0], long.iter().map(|id| i64::from(*id)).collect::<Vec<_>>());
    for (place, id) in ids[1].iter().enumerate() {
        let there = short.get(place);
        assert_eq!(*id, there.map_or(1, |id| i64::from(*id)));
        assert_eq!(mask[1][place], i64::from(there.is_some()));
    }
    assert_eq!(mask[0], vec![1; long.len()]);
    assert_eq!(rows(&batch.types), vec![vec![0; long.len()]; 2]);
    assert_eq!(Vec::<i64>::try_from(&batch.labels).unwrap(), [2, 0]);
    assert!(examples.batch(&[0], Device::Cpu).unwrap().mask.is_none(), "nothing is filled up");
    assert!(examples.batch(&[3], Device::Cpu).unwrap_err().to_string().contains("no example 3"));
}

#[test]
fn numbers_are_f32_and_lengths_decide_an_evaluation() {
    let (tokens, pad) = tokens(&["the", "the dog and the fox", "and the"], Some(&["a", "b", "c"]));
    assert!(Examples::new(tokens.clone(), Targets::Values(vec![1.0]), pad).is_err());
    let examples = Examples::new(tokens, Targets::Values(vec![0.5, 1.5, -2.0]), pad).unwrap();
    let batches = examples.by_length(2);
    assert_eq!(batches, [vec![1, 2], vec![0]]);
    let batch = examples.batch(&batches[0], Device::Cpu).unwrap();
    assert_eq!(batch.labels.kind(), Kind::Float);
    assert_eq!(Vec::<f32>::try_from(&batch.labels).unwrap(), [1.5, -2.0]);
}
