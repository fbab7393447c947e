//! The arguments of a command: plain words and `--name value` options, each named by the command that takes it.

/// Plain words in order, and options in order (an option may be repeated).
#[derive(Debug, Default)]
pub(crate) struct Args {
    /// The arguments that belong to no option.
    pub(crate) words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Args {
    /// Reads `--name value` and `--name=value` for the `known` names (without the dashes).
    /// Fails on an option that is not among them, or that has no value.
    pub(crate) fn parse(args: &[String], known: &[&str]) -> Result<Args, String> {
        let mut parsed = Args::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(option) = arg.strip_prefix("--") else {
                parsed.words.push(arg.clone());
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (option, None),
            };
            if !known.contains(&name) {
                return Err(format!("no option --{name}; there is {}", listed(known)));
            }
            let value = value.or_else(|| rest.next().cloned()).ok_or(format!("--{name} wants a value"))?;
            parsed.options.push((name.to_string(), value));
        }
        Ok(parsed)
    }

    /// The last value of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rfind(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Every value of an option, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The number of threads, at least 1, where `--threads` gives one.
    pub(crate) fn threads(&self) -> Result<Option<usize>, String> {
        match self.get("threads").map(str::parse) {
            None => Ok(None),
            Some(Ok(n)) if n > 0 => Ok(Some(n)),
            Some(_) => Err("--threads wants a whole number from 1".into()),
        }
    }
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { "none".into() } else { known.iter().map(|k| format!("--{k}")).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args, String> {
        let args: Vec<String> = text.split_whitespace().map(String::from).collect();
        Args::parse(&args, &["set", "threads"])
    }

    #[test]
    fn words_and_options_mix() {
        let args = parse("a --set x=1 b --threads=2 --set y=2").unwrap();
        assert_eq!(args.words, ["a", "b"]);
        assert_eq!(args.all("set").collect::<Vec<_>>(), ["x=1", "y=2"]);
        assert_eq!(args.threads(), Ok(Some(2)));
        assert_eq!(args.get("seed"), None);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(parse("--sett x").unwrap_err().contains("--set, --threads"));
        assert!(parse("--set").unwrap_err().contains("wants a value"));
        assert!(parse("--threads 0").unwrap().threads().is_err());
    }
}
