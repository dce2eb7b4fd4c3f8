//! Texts from outside, as they may stand in a message: one line, bounded, without what steers a terminal.

/// The most bytes of a foreign text that a message repeats.
pub const MAX_ECHO: usize = 200;

/// The text with control and other unprintable characters escaped, cut so that at most [`MAX_ECHO`] bytes are left.
pub fn echo(text: &str) -> String {
    let mut out = String::new();
    for (at, character) in text.char_indices() {
        let start = out.len();
        match character {
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
        let rest = if at + character.len_utf8() < text.len() { CUT.len() } else { 0 };
        if out.len() + rest > MAX_ECHO {
            out.truncate(start);
            out.push_str(CUT);
            break;
        }
    }
    out
}

/// The whole text in one line: control and other unprintable characters are escaped. What was escaped before stays as it is.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out
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
