//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// The text with the insides of comments, strings and character literals replaced by spaces; line breaks stay, so that every
/// line keeps its number.
pub(crate) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end,
            None => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        out.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// Where the comment or literal that starts at `at` ends, if one starts there.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = |k: usize| chars.get(at + k).copied();
    match chars[at] {
        '/' if next(1) == Some('/') => Some(find(chars, at, |c| c == '\n')),
        '/' if next(1) == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(quoted_end(chars, at + 1, '"')),
        // A character has its closing quote after one character or an escape; a lifetime does not.
        '\'' if next(1) == Some('\\') => Some(quoted_end(chars, at + 1, '\'')),
        '\'' if next(2) == Some('\'') => Some(at + 3),
        'r' if at == 0
            || !is_word(chars[at - 1])
            || chars[at - 1] == 'b'
            || chars[at - 1] == 'c' =>
        {
            raw_string_end(chars, at)
        }
        _ => None,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len())
        .find(|&i| stop(chars[i]))
        .unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let open = find(chars, at + 1, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - at - 1;
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|k| chars.get(i + k) == Some(&'#'));
    Some(
        (open + 1..chars.len())
            .find(|&i| closes(i))
            .map_or(chars.len(), |i| i + 1 + hashes),
    )
}

/// The part of a file before its test module, which opens with `#[cfg(test)]` and `mod` on the next line.
pub(crate) fn before_tests(code: &str) -> &str {
    let mut at = 0;
    let mut marked = None;
    for line in code.split_inclusive('\n') {
        match (marked, line.trim()) {
            (Some(start), l) if l.starts_with("mod ") && l.ends_with('{') => return &code[..start],
            (_, "#[cfg(test)]") => marked = Some(at),
            // Further attributes may stand between the two.
            (Some(_), l) if l.starts_with("#[") => {}
            _ => marked = None,
        }
        at += line.len();
    }
    code
}

/// Whether `word` occurs in `line` as a whole word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(i, _)| !line[..i].ends_with(is_word) && !line[i + word.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        let text = "a // unsafe\nb /* x /* y */\n z */ c \"un\\\"safe\" d r#\"q\"uote\"# e '\"' f '\\'' g <'a> h";
        let code = code(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "c", "d", "e", "f", "g", "<'a>", "h"]
        );
    }

    #[test]
    fn a_raw_identifier_and_a_byte_string() {
        assert_eq!(
            code("r#type br\"x\"; for")
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["r#type", "b", ";", "for"]
        );
    }

    #[test]
    fn only_a_test_module_ends_the_file() {
        assert_eq!(
            before_tests("a\n#[cfg(test)]\nuse x;\nb\n#[cfg(test)]\nmod tests {\nc\n}\n"),
            "a\n#[cfg(test)]\nuse x;\nb\n"
        );
        assert_eq!(
            before_tests("a\n#[cfg(test)]\nmod tests;\nb\n"),
            "a\n#[cfg(test)]\nmod tests;\nb\n"
        );
    }

    #[test]
    fn whole_words() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
    }
}
