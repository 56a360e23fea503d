//! Which parameters share a learning rate, decided once from a report and never changed.
//!
//! By block (the paper's way for transformers) all tensors of a block get the rate that its linear
//! layers' mean metric asks for. By layer each scheduled tensor has its own, which its bias and its LoRA adapter
//! share. All that is in no unit keeps the base rate.

use std::collections::{BTreeMap, HashMap};

use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

use super::{Mapping, Measure, Spectra};
use crate::blocks::{Naming, Statistics, mean};
use crate::error::{Error, Result};
use crate::report::{Matrix, Report};
use crate::text::printable;

/// How many units a message lists.
const SHOWN: usize = 12;

/// What a user chooses about units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitOptions {
    /// Units to leave at the base rate: patterns such as `encoder.layer.0` or `*.layer.1*`.
    pub exclude: Vec<String>,
    /// Leave the last unit at the base rate, too, if it lies outside all blocks, as a head does. The authors'
    /// scripts leave out whatever stands last, which is a layer of the last block where the head has none.
    pub exclude_last: bool,
}

/// What shares a rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The block's name, or the tensor's.
    pub name: String,
    /// Its scheduled matrices, by their names in the report.
    pub matrices: Vec<String>,
    /// The tensors that these lie in.
    pub tensors: Vec<String>,
    /// It keeps the base rate, and counts in the alpha STD all the same.
    pub excluded: bool,
}

/// Who gets which rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The units, in the order of the report.
    pub units: Vec<Unit>,
    /// The unit of every parameter, in the order of the names that were given; `None` for the base rate.
    /// An excluded unit's parameters are its own, too: its factor is 1.
    pub of_parameter: Vec<Option<usize>>,
}

impl Plan {
    /// Makes the plan from a finished report, whose `settings.block_pattern` names the blocks, and the names
    /// of all parameters of the model.
    ///
    /// # Errors
    /// [`Error::Setting`] where a pattern is none, or fits no unit.
    pub fn new(report: &Report, parameters: &[&str], options: &UnitOptions) -> Result<Plan> {
        let by_block = report.settings.granularity == "block";
        let family = report.checkpoint.architecture.as_deref();
        let naming = Naming::new(parameters, family, report.settings.block_pattern.as_deref())?;
        let (mut units, of_parameter) =
            if by_block { by_blocks(report, parameters, &naming) } else { by_layers(report, parameters) };
        for pattern in &options.exclude {
            exclude(&mut units, pattern)?;
        }
        if let (true, false, Some(last)) = (options.exclude_last, by_block, units.last_mut()) {
            last.excluded |= !last.tensors.iter().any(|tensor| naming.block_of(tensor).is_some());
        }
        Ok(Plan { units, of_parameter })
    }

    /// The mean of every unit over those of its matrices that have the number; `None` where none does.
    pub fn values(&self, measure: Measure, spectra: &Spectra) -> Vec<Option<f64>> {
        let value = |name: &String| spectra.get(name).and_then(|numbers| numbers.get(measure));
        self.units.iter().map(|unit| mean(unit.matrices.iter().map(value))).collect()
    }

    /// The factor of every unit. Units without a value, and excluded ones, keep 1 and take no part in the
    /// mean. `gain` and `max_factor` are those of [`Mapping::factors`].
    ///
    /// # Errors
    /// [`Error::Setting`], naming the unit, where the mapping has no factor for its value.
    pub fn factors(
        &self,
        mapping: &Mapping,
        values: &[Option<f64>],
        gain: (f64, f64),
        max_factor: Option<f64>,
    ) -> Result<Vec<f64>> {
        let value = |(unit, value): (&Unit, &Option<f64>)| value.filter(|v| v.is_finite() && !unit.excluded);
        let chosen: Vec<Option<f64>> = self.units.iter().zip(values).map(value).collect();
        let metrics: Vec<f64> = chosen.iter().copied().flatten().collect();
        let named = |error: super::OutOfRange| {
            let mut scheduled = self.units.iter().zip(&chosen).filter(|(_, value)| value.is_some());
            let unit = scheduled.nth(error.position).map_or("", |(unit, _)| unit.name.as_str());
            Error::Setting(format!(
                "`{}` has no learning rate: {error}; another mapping or metric takes it.",
                printable(unit)
            ))
        };
        let mut factors = mapping.factors(&metrics, gain, max_factor).map_err(named)?.into_iter();
        let one = |value: &Option<f64>| value.and_then(|_| factors.next()).unwrap_or(1.0);
        let mut all: Vec<f64> = chosen.iter().map(one).collect();
        all.resize(self.units.len(), 1.0);
        Ok(all)
    }

    /// The factor of a parameter, by its position.
    pub fn factor_of(&self, parameter: usize, factors: &[f64]) -> f64 {
        let unit = self.of_parameter.get(parameter).copied().flatten();
        unit.and_then(|unit| factors.get(unit).copied()).unwrap_or(1.0)
    }

    /// The tensors to measure, of some units.
    pub fn tensors_of<'a>(&'a self, units: &'a [usize]) -> impl Iterator<Item = &'a str> {
        let chosen = units.iter().filter_map(|unit| self.units.get(*unit));
        chosen.flat_map(|unit| unit.tensors.iter().map(String::as_str))
    }
}

/// The population standard deviation over the units that have a value: the report's `alpha_std`, where
/// the values are alphas. `None` below two.
pub fn spread(values: &[Option<f64>]) -> Option<f64> {
    Statistics::of(values.iter().copied()).std
}

type Units = (Vec<Unit>, Vec<Option<usize>>);

fn by_blocks(report: &Report, parameters: &[&str], naming: &Naming) -> Units {
    let block_of = |matrix: &Matrix| {
        // The parameter may have another name than the tensor in the file, where weights are tied.
        let names = matrix.tensors.iter().chain(&matrix.aliases);
        names.filter_map(|name| naming.block_of(name)).map(|block| block.name).next()
    };
    let mut units = Vec::new();
    let mut positions = HashMap::new();
    for matrix in report.matrices.iter().filter(|m| m.scheduled) {
        if let Some(block) = block_of(matrix) {
            add(&mut units, &mut positions, block, matrix);
        }
    }
    // As the report lists blocks: stack after stack.
    let order: HashMap<&str, usize> =
        report.blocks.iter().enumerate().map(|(position, block)| (block.name.as_str(), position)).collect();
    units.sort_by_key(|unit| order.get(unit.name.as_str()).copied().unwrap_or(usize::MAX));
    let positions: HashMap<&str, usize> =
        units.iter().enumerate().map(|(position, unit)| (unit.name.as_str(), position)).collect();
    let unit_of = |name: &&str| positions.get(naming.block_of(name)?.name.as_str()).copied();
    let of_parameter = parameters.iter().map(unit_of).collect();
    (units, of_parameter)
}

fn by_layers(report: &Report, parameters: &[&str]) -> Units {
    let mut units = Vec::new();
    let mut positions = HashMap::new();
    let mut unit_of: BTreeMap<String, usize> = BTreeMap::new();
    for matrix in report.matrices.iter().filter(|m| m.scheduled) {
        let Some(tensor) = matrix.tensors.first() else { continue };
        let unit = add(&mut units, &mut positions, tensor.clone(), matrix);
        for name in matrix.tensors.iter().chain(&matrix.aliases) {
            unit_of.insert(name.clone(), unit);
            unit_of.extend(bias_of(name).map(|bias| (bias, unit)));
            unit_of.extend(factors_of(name).into_iter().flatten().map(|factor| (factor, unit)));
        }
    }
    let of_parameter = parameters.iter().map(|name| unit_of.get(*name).copied()).collect();
    (units, of_parameter)
}

/// Adds a matrix to the unit of a name, and returns the unit's position.
fn add(
    units: &mut Vec<Unit>,
    positions: &mut HashMap<String, usize>,
    name: String,
    matrix: &Matrix,
) -> usize {
    let position = *positions.entry(name.clone()).or_insert_with(|| {
        units.push(Unit { name, matrices: Vec::new(), tensors: Vec::new(), excluded: false });
        units.len() - 1
    });
    if let Some(unit) = units.get_mut(position) {
        unit.matrices.push(matrix.name.clone());
        for tensor in &matrix.tensors {
            // The parts of one tensor stand together.
            if unit.tensors.last() != Some(tensor) {
                unit.tensors.push(tensor.clone());
            }
        }
    }
    position
}

/// The bias that goes with a weight: `a.weight` and `a.bias`, `in_proj_weight` and `in_proj_bias`,
/// `weight_ih_l0` and `bias_ih_l0`.
fn bias_of(weight: &str) -> Option<String> {
    let (module, parameter) = match weight.rsplit_once('.') {
        Some((module, parameter)) => (Some(module), parameter),
        None => (None, weight),
    };
    let at = parameter.find("weight")?;
    let bias = format!("{}bias{}", parameter.get(..at)?, parameter.get(at + "weight".len()..)?);
    Some(module.map_or(bias.clone(), |module| format!("{module}.{bias}")))
}

/// The factors of a weight's LoRA adapter, which share its rate.
fn factors_of(weight: &str) -> Option<[String; 2]> {
    let module = weight.strip_suffix(".weight")?;
    Some(["A", "B"].map(|factor| format!("{module}.lora_{factor}.weight")))
}

fn exclude(units: &mut [Unit], pattern: &str) -> Result<()> {
    let invalid = |e: globset::Error| {
        Error::Setting(format!("--exclude takes name patterns such as '*.layer.0': {e}."))
    };
    let glob = GlobBuilder::new(pattern).literal_separator(false).build().map_err(invalid)?.compile_matcher();
    let mut found = false;
    for unit in units.iter_mut().filter(|unit| glob.is_match(&unit.name)) {
        unit.excluded = true;
        found = true;
    }
    if found {
        return Ok(());
    }
    let names: Vec<String> = units.iter().take(SHOWN).map(|u| format!("`{}`", printable(&u.name))).collect();
    let more = units.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::Setting(format!(
        "--exclude `{}` fits none of what is scheduled: {}{more}.",
        printable(pattern),
        if names.is_empty() { "nothing is".to_owned() } else { names.join(", ") }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_goes_with_its_weight() {
        let pairs = [
            ("a.b.weight", Some("a.b.bias")),
            ("attn.in_proj_weight", Some("attn.in_proj_bias")),
            ("rnn.weight_ih_l0", Some("rnn.bias_ih_l0")),
            ("weight", Some("bias")),
            ("weights.kernel", None),
        ];
        for (weight, bias) in pairs {
            assert_eq!(bias_of(weight).as_deref(), bias);
        }
    }

    #[test]
    fn an_adapter_goes_with_its_weight() {
        assert_eq!(factors_of("a.q.weight").unwrap(), ["a.q.lora_A.weight", "a.q.lora_B.weight"]);
        assert_eq!(factors_of("a.in_proj_weight"), None);
    }

    fn plan(names: &[&str], excluded: &[usize]) -> Plan {
        let unit = |(i, name): (usize, &&str)| Unit {
            name: (*name).to_owned(),
            matrices: vec![format!("{name}.weight")],
            tensors: vec![format!("{name}.weight")],
            excluded: excluded.contains(&i),
        };
        let units = names.iter().enumerate().map(unit).collect();
        Plan { units, of_parameter: vec![Some(0), None, Some(2)] }
    }

    #[test]
    fn what_has_no_value_takes_no_part() {
        let plan = plan(&["a", "b", "c", "d", "e"], &[3]);
        let values = [Some(2.9), None, Some(3.0), Some(7.0), Some(3.2)];
        let factors = plan.factors(&Mapping::default(), &values, (1.25, 1.25), None).unwrap();
        let alone = Mapping::default().factors(&[2.9, 3.0, 3.2], (1.25, 1.25), None).unwrap();
        assert_eq!(factors, [alone[0], 1.0, alone[1], 1.0, alone[2]]);
        assert_eq!([0, 1, 2, 9].map(|p| plan.factor_of(p, &factors)), [alone[0], 1.0, alone[1], 1.0]);
        assert_eq!(plan.tensors_of(&[1, 7, 4]).collect::<Vec<_>>(), ["b.weight", "e.weight"]);
        // The excluded one counts here.
        assert!((spread(&values).unwrap() - Statistics::of(values.into_iter()).std.unwrap()).abs() < 1e-15);
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let plan = plan(&["a", "b", "c"], &[0]);
        let values = [Some(0.2), Some(2.0), Some(0.5)];
        let error = plan.factors(&Mapping::Log2, &values, (1.0, 1.0), None).unwrap_err().to_string();
        assert_eq!(
            error,
            "`c` has no learning rate: the mapping `log2` needs metrics above 1, and this one is 0.5; another \
             mapping or metric takes it."
        );
    }

    #[test]
    fn a_pattern_that_fits_nothing_lists_what_there_is() {
        let mut plan = plan(&["x.0", "x.1"], &[]);
        exclude(&mut plan.units, "*.1").unwrap();
        assert_eq!(plan.units.iter().map(|u| u.excluded).collect::<Vec<_>>(), [false, true]);
        let error = exclude(&mut plan.units, "y*").unwrap_err().to_string();
        assert_eq!(error, "--exclude `y*` fits none of what is scheduled: `x.0`, `x.1`.");
        assert!(exclude(&mut plan.units, "[").is_err());
    }
}
