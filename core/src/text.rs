//! Texts from outside, as they may stand in a message: one line, bounded, without what steers a terminal.

/// The most bytes of a foreign text that a message repeats.
pub const MAX_ECHO: usize = 200;

/// The text with control and other unprintable characters escaped, cut so that at most [`MAX_ECHO`] bytes are left.
pub fn echo(text: &str) -> String {
    // so much of it stays if it has to be cut
    let (mut out, mut kept) = (String::new(), 0);
    for character in text.chars() {
        push(&mut out, character);
        if out.len() > MAX_ECHO {
            out.truncate(kept);
            out.push_str(CUT);
            break;
        }
        if out.len() + CUT.len() <= MAX_ECHO {
            kept = out.len();
        }
    }
    out
}

/// The whole text in one line: control and other unprintable characters are escaped. What was escaped before stays as it is.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|character| push(&mut out, character));
    out
}

fn push(out: &mut String, character: char) {
    match character {
        '"' | '\'' | '\\' => out.push(character),
        _ => out.extend(character.escape_debug()),
    }
}

/// Stands for what was cut off.
const CUT: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_one_bounded_line_that_steers_nothing() {
        for (text, expected) in [
            ("plain, \"quoted\" and schön", "plain, \"quoted\" and schön"),
            ("two\nlines\r", "two\\nlines\\r"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("right to left: \u{202e}abc", "right to left: \\u{202e}abc"),
        ] {
            assert_eq!(echo(text), expected);
            assert_eq!(one_line(text), expected);
            assert_eq!(one_line(expected), expected);
        }
        assert_eq!(echo(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(echo(&"x".repeat(201)), format!("{}…", "x".repeat(197)));
        for character in ["é", "\n", "\u{1b}", "€"] {
            let long = echo(&character.repeat(1_000));
            assert!(long.len() <= MAX_ECHO && long.ends_with('…'), "{long}");
        }
    }
}
