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
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
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
        'r' if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' || chars[at - 1] == 'c' => {
            raw_string_end(chars, at)
        }
        _ => None,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&i| stop(chars[i])).unwrap_or(chars.len())
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
    Some((open + 1..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes))
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

/// One arm of a `match`: the line (from 1) that it starts on, and its pattern with the guard.
#[derive(Debug, PartialEq)]
pub(crate) struct Arm<'a> {
    pub(crate) line: usize,
    pub(crate) pattern: &'a str,
}

/// The arms of every `match` in text that [`code`] has blanked, inner ones included.
pub(crate) fn matches(code: &str) -> Vec<Vec<Arm<'_>>> {
    let heads = code.match_indices("match").filter(|(i, word)| {
        !code[..*i].ends_with(is_word) && !code[i + word.len()..].starts_with(|c| is_word(c) || c == '!')
    });
    let blocks = heads.filter_map(|(i, _)| until(code, i, |rest| rest.starts_with('{')));
    blocks.map(|open| arms(code, open + 1)).collect()
}

/// The arms from `at`, just inside the braces of a `match`, to the closing brace.
fn arms(code: &str, mut at: usize) -> Vec<Arm<'_>> {
    let mut arms = Vec::new();
    while let Some(arrow) = until(code, at, |rest| rest.starts_with("=>")) {
        let start = at + code[at..arrow].len() - code[at..arrow].trim_start().len();
        arms.push(Arm { line: 1 + code[..start].matches('\n').count(), pattern: code[start..arrow].trim() });
        let body = arrow + 2;
        let block = body + code[body..].len() - code[body..].trim_start().len();
        let end = if code[block..].starts_with('{') {
            // A block ends its arm with or without a comma.
            (closing(code, block + 1) + 1).min(code.len())
        } else {
            match until(code, body, |rest| rest.starts_with(',')) {
                Some(comma) => comma,
                None => break,
            }
        };
        at = end + usize::from(code[end..].starts_with(','));
    }
    arms
}

/// The first place from `from` on, outside any bracket that opens after it, that `stops`; `None` if a bracket closes before.
fn until(code: &str, from: usize, stops: impl Fn(&str) -> bool) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in code[from..].char_indices() {
        if depth == 0 && stops(&code[from + i..]) {
            return Some(from + i);
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return None,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The bracket that closes the one just before `from`.
fn closing(code: &str, from: usize) -> usize {
    let mut depth = 1;
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return from + i;
        }
    }
    code.len()
}

/// Whether `word` occurs in `line` as a whole word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(i, _)| !line[..i].ends_with(is_word) && !line[i + word.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        let text = "a // unsafe\nb /* x /* y */\n z */ c \"un\\\"safe\" d r#\"q\"uote\"# e '\"' f '\\'' g <'a> h";
        let code = code(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f", "g", "<'a>", "h"]);
    }

    #[test]
    fn a_raw_identifier_and_a_byte_string() {
        assert_eq!(code("r#type br\"x\"; for").split_whitespace().collect::<Vec<_>>(), ["r#type", "b", ";", "for"]);
    }

    #[test]
    fn only_a_test_module_ends_the_file() {
        assert_eq!(
            before_tests("a\n#[cfg(test)]\nuse x;\nb\n#[cfg(test)]\nmod tests {\nc\n}\n"),
            "a\n#[cfg(test)]\nuse x;\nb\n"
        );
        assert_eq!(before_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\n#[cfg(test)]\nmod tests;\nb\n");
    }

    #[test]
    fn arms_of_nested_matches() {
        let text = "match f(|x| { x }) {\n    P::A { a, .. } | P::B => match a {\n        1 => {\n            g();\n        }\n        _ if b => 2,\n        _ => 3\n    },\n    other => h(1, 2),\n}\nmatch!(a);";
        let found: Vec<Vec<(usize, &str)>> =
            matches(text).iter().map(|m| m.iter().map(|a| (a.line, a.pattern)).collect()).collect();
        assert_eq!(found, [vec![(2, "P::A { a, .. } | P::B"), (9, "other")], vec![(3, "1"), (6, "_ if b"), (7, "_")]]);
    }

    #[test]
    fn whole_words() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
    }
}
