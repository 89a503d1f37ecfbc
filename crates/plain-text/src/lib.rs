//! Foreign text made safe for terminals, logs and tables: names, messages and lines
//! that somebody else chose.
//!
//! One rule for all of it. [`plain`] gives one line in which every character is one
//! that a reader sees, in the order in which it stands:
//!
//! | character | becomes |
//! |---|---|
//! | control characters (Unicode category Cc), as in escape sequences of terminals | `\n`, `\u{1b}` |
//! | line and paragraph separators (Zl, Zp) | `\u{2028}` |
//! | format characters (Cf), as those that reorder a text ([UAX #9]) or are invisible | `\u{202e}` |
//! | tabs and everything else | itself |
//!
//! The text is for people: a backslash stays as it is, so the original cannot always
//! be told from the result.
//!
//! ```
//! use plain_text::plain;
//!
//! assert_eq!(plain("evil\x1b[2J\u{202e}txt.exe"), r"evil\u{1b}[2J\u{202e}txt.exe");
//! ```
//!
//! [UAX #9]: https://www.unicode.org/reports/tr9/

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

/// The text in one line, of visible characters only. It is at most six times as long
/// in bytes.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if is_hidden(character) => plain.extend(character.escape_default()),
            _ => plain.push(character),
        }
    }
    plain
}

/// The same of what may be several lines or be indented: its words, one space apart.
pub fn plain_words(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().map(plain).collect();
    words.join(" ")
}

/// The same of a message that may have several lines: these lines, in one.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(plain).collect();
    lines.join("; ")
}

/// As [`plain`] gives it, cut to so many characters of the result; an ellipsis says that it was.
pub fn plain_start(text: &str, characters: usize) -> String {
    // One character of the text is at least one of the result.
    let longest = text
        .char_indices()
        .nth(characters.saturating_add(1))
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text);
    let mut plain = plain(longest);
    if let Some((end, _)) = plain.char_indices().nth(characters) {
        plain.truncate(end);
        plain.push('…');
    }
    plain
}

/// Whether a character is a control, a separator of lines or a format character
/// (Unicode 16, categories Cc, Zl, Zp, Cf).
fn is_hidden(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(
            character,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0001}'
                | '\u{e0020}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["", "payments", r"C:\enclave", "naïve Größe 数 🦀 a\u{301}"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn nothing_moves_a_cursor_or_the_order_of_a_line() {
        for (text, expected) in [
            ("a\nb\r\n", r"a\nb\r\n"),
            ("\x1b]0;title\x07", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("a\tb", "a\tb"),
            ("\u{202e}cod.exe\u{2069}", r"\u{202e}cod.exe\u{2069}"),
            ("a\u{2028}b\u{85}c", r"a\u{2028}b\u{85}c"),
            ("pay\u{200b}ments\u{feff}", r"pay\u{200b}ments\u{feff}"),
            ("\u{e0041}", r"\u{e0041}"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }

    #[test]
    fn words_of_several_lines_are_one_line() {
        assert_eq!(plain_words(" two\r\n\tlines\x1b[m "), r"two lines\u{1b}[m");
        assert_eq!(plain_words(" \n"), "");
    }

    #[test]
    fn lines_of_a_message_are_one_line() {
        assert_eq!(plain_lines("one\r\n two\x1b[m\n"), r"one;  two\u{1b}[m");
        assert_eq!(plain_lines("one"), "one");
        assert_eq!(plain_lines(""), "");
    }

    #[test]
    fn a_start_is_cut_where_it_shows_that_it_is() {
        assert_eq!(plain_start("abc", 3), "abc");
        assert_eq!(plain_start("abcd", 3), "abc…");
        assert_eq!(plain_start("\x1bx", 4), r"\u{1…");
        assert_eq!(plain_start("abc", 0), "…");
    }

    proptest! {
        #[test]
        fn the_result_has_nothing_hidden_and_is_its_own(text in any::<String>()) {
            let once = plain(&text);
            prop_assert!(!once.chars().any(is_hidden));
            prop_assert!(once.len() <= 6 * text.len());
            prop_assert_eq!(plain(&once), once.clone());
            prop_assert_eq!(plain_start(&text, usize::MAX), once);
        }

        #[test]
        fn a_start_begins_the_whole(text in any::<String>(), length in 0..40_usize) {
            let whole = plain(&text);
            let start = plain_start(&text, length);
            let kept = start.strip_suffix('…').unwrap_or(&start).to_string();
            prop_assert!(whole.starts_with(&kept) || whole == start, "{}", format!("{start:?}"));
            prop_assert!(start.chars().count() <= length + 1);
        }
    }
}
