//! What a program takes, and what its `--help` says.

use getopts::{Matches, Options};

use crate::locator::LIMITS;
use crate::words::counted;

use super::End;

/// How many arguments a program takes.
pub type Arity = std::ops::RangeInclusive<usize>;

/// What a program takes, and what its `--help` says. `scripts/manpages` makes the man page and the completions of
/// that.
pub struct Usage {
    /// What it is for: the rest of a sentence that begins with its name.
    pub purpose: &'static str,
    /// Its arguments, as `--help` shows them, and how many there may be.
    pub arguments: (&'static str, Arity),
    /// Options without an argument: short and long name, either of which may be empty, and what it does.
    pub flags: &'static [(&'static str, &'static str, &'static str)],
    /// More that is to be known, lines of up to 80 characters; may be empty.
    pub notes: &'static str,
    /// Command lines.
    pub examples: [&'static str; 2],
    /// What exit codes 0 and 1 mean; the latter may be empty.
    pub codes: [&'static str; 2],
}

impl Usage {
    /// The name of the first argument, if there is one.
    pub(super) fn first(&self) -> Option<&str> {
        let first = self.arguments.0.split_whitespace().next()?;
        Some(first.trim_matches(['[', ']', '.']))
    }

    /// Parses arguments by `options`, the program's own flags and those that all have. `--help` says what is said
    /// `about` all programs of its kind, too.
    pub(super) fn parse(
        &self,
        mut options: Options,
        program: &str,
        about: &str,
        arguments: &[String],
    ) -> Result<Matches, End> {
        for (short, long, text) in self.flags {
            options.optflag(short, long, text);
        }
        options.optflag("", "help", "print this and end");
        options.optflag("", "version", "print the version and end");
        let matches = options.parse(arguments).map_err(End::usage)?;
        if matches.opt_present("help") {
            return Err(End::Tell(self.help(&options, program, about)));
        }
        if matches.opt_present("version") {
            let version = env!("CARGO_PKG_VERSION");
            return Err(End::Tell(format!("{program} {version}")));
        }
        let (words, arity) = &self.arguments;
        if !arity.contains(&matches.free.len()) {
            let wanted = match *words {
                "" => "no arguments",
                words => words,
            };
            let found = counted(matches.free.len(), "argument", "arguments");
            return Err(End::usage(format!("{wanted} expected, {found} found")));
        }
        Ok(matches)
    }

    fn help(&self, options: &Options, program: &str, about: &str) -> String {
        let Usage {
            purpose,
            arguments: (words, _),
            notes,
            examples: [one, other],
            codes: [done, no],
            ..
        } = self;
        let [item, message] =
            [LIMITS.string_bytes_max, LIMITS.message_bytes_max].map(|bytes| bytes >> 20);
        let usage = format!("Usage: {program} [OPTIONS] {words}");
        let mut brief = format!("{program}: {purpose}\n\n{}\n\n", usage.trim_end());
        if !notes.is_empty() {
            brief += &format!("{notes}\n\n");
        }
        brief += &format!(
            "{about}\n\nA key and a value have at most {item} MiB each, a message {message} MiB."
        );
        let options = options.usage(&brief);
        let lines: Vec<_> = options.lines().map(str::trim_end).collect();
        let mut help = format!(
            "{}\n\nExamples:\n    {one}\n    {other}\n\nExit codes:\n    0  {done}\n",
            lines.join("\n").trim_end()
        );
        if !no.is_empty() {
            help += &format!("    1  {no}\n");
        }
        help + "    2  trouble: a line on standard error says which"
    }
}
