//! Whether a run that is resumed is asked for what it began with: with other numbers of epochs or examples its steps
//! would not be those that are left.

use serde_json::Value;

/// The first of what was asked for, by its name, that is not what is asked for now: in words.
pub fn difference(then: &Value, now: &Value) -> Option<String> {
    let (Value::Object(before), Value::Object(after)) = (then, now) else {
        return (then != now).then(|| format!(" was {then} and is {now}"));
    };
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let of =
        |entries: &serde_json::Map<String, Value>, name: &str| entries.get(name).cloned().unwrap_or_default();
    names.into_iter().find_map(|name| {
        let inner = difference(&of(before, name), &of(after, name))?;
        let dot = if inner.starts_with(' ') { "" } else { "." };
        Some(format!("{name}{dot}{inner}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let then = json!({"lora": null, "training": {"epochs": 3, "batch": 16, "clip": 1.0}});
        let changed = |key: &str, value: Value| {
            let mut now = then.clone();
            now["training"][key] = value;
            difference(&then, &now)
        };
        assert_eq!(difference(&then, &then), None);
        assert_eq!(changed("batch", json!(8)).unwrap(), "training.batch was 16 and is 8");
        assert_eq!(changed("more", json!("x")).unwrap(), "training.more was null and is \"x\"");
        let now = json!({"lora": {"rank": 8}, "training": then["training"]});
        assert_eq!(difference(&then, &now).unwrap(), "lora was null and is {\"rank\":8}");
        // As they come back from a file.
        let again: Value = serde_json::from_str(&then.to_string()).unwrap();
        assert_eq!(difference(&then, &again), None);
    }
}
