//! Whatever is wrong with a block file, the error names the field in the words of the format, on one bounded line.

use super::*;
use serde_json::{Map, Value, json};

const MAX_CALLS: usize = 7;

fn word(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

/// Two transactions with one and two calls.
fn sample() -> Value {
    let call = |n: u8| {
        json!({
            "slot": n, "args": word(n), "old_value": word(100 + n), "siblings": vec![word(n); STATE_DEPTH],
            "state_before": word(n - 1), "state_after": word(n),
        })
    };
    let transaction =
        |n: u8, calls: Vec<Value>| json!({"hash": word(n), "private_proof": word(n), "calls": calls});
    json!({
        "version": 2, "profile": "mini-rollup-v1", "chain_id": 1, "block_number": 2,
        "state_before": word(0), "state_after": word(3),
        "transactions": [transaction(20, vec![call(1)]), transaction(21, vec![call(2), call(3)])],
    })
}

fn parse(text: &str) -> Result<Block, BlockError> {
    let block = Block::parse(text.as_bytes(), MAX_CALLS);
    let streamed = Block::read(text.as_bytes(), MAX_CALLS);
    match (&block, &streamed) {
        // where the reader of a stream stands differs by what it has read ahead
        (Err(a), Err(b)) => assert_eq!(a.field, b.field, "{a} / {b}"),
        (a, b) => assert_eq!(a, b),
    }
    if let Err(error) = &block {
        let line = error.to_string();
        assert!(line.len() < 700 && !line.chars().any(char::is_control), "{line:?}");
    }
    block
}

fn fault(text: &str) -> BlockError {
    parse(text).expect_err(&text.chars().take(300).collect::<String>())
}

/// A step into a JSON value.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Item(usize),
}

fn name(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if out.is_empty() => out += key,
            Step::Key(key) => out += &format!(".{key}"),
            Step::Item(item) => out += &format!("[{item}]"),
        }
    }
    if out.is_empty() { "file".into() } else { out }
}

/// The paths to all values.
fn paths(value: &Value, here: &mut Vec<Step>, all: &mut Vec<Vec<Step>>) {
    all.push(here.clone());
    let below: Vec<(Step, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (Step::Key(key.clone()), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, value)| (Step::Item(i), value)).collect(),
        _ => vec![],
    };
    for (step, value) in below {
        here.push(step);
        paths(value, here, all);
        here.pop();
    }
}

fn all_paths() -> Vec<Vec<Step>> {
    let mut all = vec![];
    paths(&sample(), &mut vec![], &mut all);
    all
}

fn at<'v>(value: &'v mut Value, path: &[Step]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[key],
        Step::Item(item) => &mut value[*item],
    })
}

#[test]
fn the_sample_is_good_in_any_order_of_its_fields() {
    let block = parse(&sample().to_string()).unwrap();
    assert_eq!(block.transactions.len(), 2);
    let written = serde_json::to_string(&block).unwrap();
    assert_ne!(written, sample().to_string(), "another order");
    assert_eq!(parse(&written).unwrap(), block);
}

#[test]
fn a_value_of_another_type_or_out_of_range_is_refused_by_its_name() {
    let values = [
        "null",
        "true",
        "-1",
        "1.5",
        "1e30",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "1e999",
        "\"\"",
        "\"x\"",
        "\"\\u001b[31m\\n\"",
        "[]",
        "[[]]",
        "{}",
        "{\"a\":1}",
        "[null]",
    ];
    let long = [format!("\"{}\"", "é".repeat(50_000)), format!("\"{}\"", word(250).to_uppercase())];
    let mark = "\"the value to replace\"";
    let mut tried = 0;
    for path in all_paths() {
        for value in values.iter().copied().chain(long.iter().map(String::as_str)) {
            let wanted = name(&path);
            let mut block = sample();
            *at(&mut block, &path) = Value::String("the value to replace".into());
            let text = block.to_string().replace(mark, value);
            tried += 1;
            // no call is as good as one, but states don't chain then
            if wanted.ends_with("calls") && value == "[]" {
                assert!(fault(&text).problem.contains("states must chain"));
                continue;
            }
            // which profile it has to be is not the format's to say
            if wanted == "profile" && value.starts_with('"') && (3..=66).contains(&value.chars().count()) {
                assert!(parse(&text).is_ok());
                continue;
            }
            let error = fault(&text);
            let inside = match value {
                "[[]]" | "[null]" => format!("{wanted}[0]"),
                "{}" => String::new(),
                "{\"a\":1}" => format!("{wanted}.a"),
                _ => wanted.clone(),
            };
            let missing = value == "{}" && error.problem == "it is missing";
            let of_root = wanted == "file" && error.field == "a";
            let named = error.field == wanted || error.field == inside || missing || of_root;
            assert!(named, "{wanted} = {value}: {error}");
        }
    }
    assert!(tried > 1_500, "{tried}");
}

#[test]
fn a_field_that_is_missing_unknown_or_twice_is_named() {
    for path in all_paths() {
        let Some((Step::Key(key), above)) = path.split_last() else { continue };
        let field = name(&path);

        let mut missing = sample();
        at(&mut missing, above).as_object_mut().unwrap().remove(key);
        let error = fault(&missing.to_string());
        assert_eq!((error.field.as_str(), error.problem.as_str()), (field.as_str(), "it is missing"));

        let mut renamed = sample();
        let object = at(&mut renamed, above).as_object_mut().unwrap();
        let value = object.remove(key).unwrap();
        object.insert(format!("{key}_"), value);
        let error = fault(&renamed.to_string());
        assert_eq!(error.field, format!("{field}_"), "{error}");
        assert!(error.problem.contains(key.as_str()), "what is known is said: {error}");

        let mut twice = sample();
        let object = at(&mut twice, above).as_object_mut().unwrap();
        object.insert(format!("{key}_"), object[key].clone());
        let error = fault(&twice.to_string().replace(&format!("\"{key}_\""), &format!("\"{key}\"")));
        assert_eq!((error.field.as_str(), error.problem.as_str()), (field.as_str(), "it stands here twice"));
    }
}

#[test]
fn a_list_does_not_pass_for_an_object() {
    for path in all_paths() {
        let mut block = sample();
        let value = at(&mut block, &path);
        let Value::Object(fields) = value else { continue };
        *value =
            Value::Array(std::mem::take::<Map<_, _>>(fields).into_iter().map(|(_, value)| value).collect());
        let error = fault(&block.to_string());
        assert_eq!(error.field, name(&path));
        assert!(error.problem.starts_with("a list; expected is"), "{error}");
    }
}

#[test]
fn hexadecimal_digits_are_64_and_in_lower_case_as_the_schema_says() {
    for path in all_paths() {
        let mut block = sample();
        let Value::String(text) = at(&mut block, &path).clone() else { continue };
        if text.len() != 64 {
            continue;
        }
        let upper = format!("A{}", &text[1..]);
        for bad in [
            upper,
            text[1..].into(),
            format!("{text}0"),
            format!("0x{}", &text[2..]),
            format!("g{}", &text[1..]),
        ] {
            *at(&mut block, &path) = Value::String(bad.clone());
            let error = fault(&block.to_string());
            assert_eq!(error.field, name(&path), "{bad}");
            assert!(error.problem.contains("in lower case"), "{error}");
        }
    }
}

#[test]
fn a_file_that_ends_early_or_goes_on_says_where() {
    let text = sample().to_string();
    for end in 0..text.len() {
        let error = fault(&text[..end]);
        assert!(
            error.problem.contains("the file ends here") && error.problem.contains("line 1 column"),
            "{error}"
        );
    }
    let in_a_word = text.find(&word(101)).unwrap() + 5;
    assert_eq!(fault(&text[..in_a_word]).field, "transactions[0].calls[0].old_value");
    for tail in ["x", "{}", "]", "\u{0}"] {
        let error = fault(&format!("{text}{tail}"));
        assert_eq!(error.field, "file");
        assert!(error.problem.contains("nothing may follow"), "{error}");
    }
    assert!(parse(&format!("\n {text}\n\n")).is_ok());
    for (no_json, said) in
        [("", "ends here"), ("<xml>", "no JSON"), ("{version: 2}", "no JSON"), ("{'a'", "no JSON")]
    {
        let error = fault(no_json);
        assert_eq!(error.field, "file");
        assert!(error.problem.contains(said), "{error}");
    }
    let not_utf8 =
        [b"{\"profile\": \"\xff\"}".as_slice(), b"\"\xff"].map(|bytes| Block::parse(bytes, 7).unwrap_err());
    assert_eq!(not_utf8[0].field, "profile");
}

#[test]
fn lists_are_no_longer_than_allowed() {
    for (path, most) in [("/transactions/1/calls/0/siblings", 16), ("/transactions/1/calls", MAX_CALLS)] {
        let mut block = sample();
        let list = block.pointer_mut(path).unwrap().as_array_mut().unwrap();
        list.resize(most + 1, list[0].clone());
        let error = fault(&block.to_string());
        assert!(error.problem.contains(&format!("more than {most} of them")), "{error}");
        assert!(error.field.ends_with("siblings") || error.field == "transactions[1].calls", "{error}");
    }
    let mut few = sample();
    few["transactions"][1]["calls"][0]["siblings"].as_array_mut().unwrap().pop();
    let error = fault(&few.to_string()).to_string();
    assert_eq!(error, "transactions[1].calls[0].siblings: 15 of them, allowed are 16");
    let mut many = sample();
    let empty = |n: usize| json!({"hash": format!("{n:064x}"), "private_proof": word(1), "calls": []});
    many["state_after"] = many["state_before"].clone();
    many["transactions"] = (0..MAX_TRANSACTIONS).map(empty).collect();
    assert!(parse(&many.to_string()).is_ok());
    many["transactions"].as_array_mut().unwrap().push(Value::Null);
    let error = fault(&many.to_string()).to_string();
    assert_eq!(error, "transactions: more than 65536 of them, allowed are 1 to 65536 transactions");
}

#[test]
fn what_does_not_fit_together_names_both_places() {
    let change = |pointer: &str, value: Value| {
        let mut block = sample();
        *block.pointer_mut(pointer).unwrap() = value;
        fault(&block.to_string()).to_string()
    };
    for (pointer, value, field, said) in [
        (
            "/transactions/1/calls/1/state_before",
            word(9),
            "transactions[1].calls[1].state_before",
            "transactions[1].calls[0].state_after is",
        ),
        (
            "/transactions/0/calls/0/state_before",
            word(9),
            "transactions[0].calls[0].state_before",
            "but state_before is",
        ),
        ("/state_after", word(9), "state_after", "transactions[1].calls[1].state_after leaves"),
        ("/transactions/1/hash", word(20), "transactions[1].hash", "stands already at transactions[0]"),
    ] {
        let error = change(pointer, Value::String(value));
        assert!(error.starts_with(&format!("{field}: ")) && error.contains(said), "{error}");
    }
    assert_eq!(change("/transactions", json!([])), "transactions: 0 of them, allowed are 1 to 65536");
    assert_eq!(change("/version", json!(1)), "version: 1; expected is 2, this version of the format");
    assert_eq!(
        change("/transactions/0/calls/0/slot", json!(65_536)),
        "transactions[0].calls[0].slot: 65536; expected is a whole number from 0 to 65535"
    );
    assert_eq!(
        change("/chain_id", json!(u64::MAX - (1 << 32) + 2)),
        "chain_id: 18446744069414584321; expected is a whole number from 0 to 2^64 - 2^32"
    );
}

#[test]
fn a_call_in_the_store_is_read_by_the_same_rules() {
    let block = parse(&sample().to_string()).unwrap();
    let call = &block.transactions[0].calls[0];
    assert_eq!(Call::from_input(&call.to_input()).as_ref(), Ok(call));
    for (input, field) in
        [("{}", "call.slot"), ("[]", "call"), ("{\"slot\": -1}", "call.slot"), ("x", "call")]
    {
        assert_eq!(Call::from_input(input.as_bytes()).unwrap_err().field, field, "{input}");
    }
}

#[test]
fn a_stream_is_read_to_the_limit_and_no_further() {
    let text = sample().to_string();
    let whole = text.len() as u64;
    assert!(Block::read_at_most(text.as_bytes(), MAX_CALLS, whole).is_ok());
    let endless = text.as_bytes().chain(std::io::repeat(b' '));
    let error = Block::read_at_most(endless, MAX_CALLS, whole + 10).unwrap_err().to_string();
    assert_eq!(error, format!("file: more than {} bytes, the most a block file may have", whole + 10));
}
