//! What the documentation lists is what the program has.

use evenkeel::blocks::FAMILIES;

#[test]
fn every_family_is_in_the_table() {
    let page = include_str!("../docs/commands.md");
    for family in FAMILIES {
        let start = format!("| {} |", family.name);
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        for path in family.paths {
            assert!(row.contains(&format!("`{}`", path.segments)), "{}: {}", family.name, path.segments);
            assert!(row.contains(&format!("{}: ", path.stack)), "{}: {}", family.name, path.stack);
        }
        let types = row.rsplit('|').nth(1).unwrap_or_default();
        let listed: Vec<&str> = types.split(',').map(str::trim).collect();
        for model_type in family.model_types {
            assert!(listed.contains(model_type), "{}: {model_type} is missing", family.name);
        }
        assert!(family.model_types.is_empty() || listed.len() == family.model_types.len(), "{}", family.name);
    }
}
