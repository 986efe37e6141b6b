//! What the documents tell people to type: the program must take it. Nothing is run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory, Parser, error::ErrorKind};

use super::Arguments;

/// What starts another program, which is an argument of it.
const LAUNCHERS: [&str; 7] = ["env", "mpirun", "nice", "nohup", "srun", "sudo", "time"];

/// A command of a script: the line that it begins in, counted from 1, and its words.
type ShellCommand = (usize, Vec<String>);

/// Ends a word.
fn end_word(word: &mut Option<String>, words: &mut Vec<String>, is_file: &mut bool) {
    if let Some(word) = word.take()
        && !std::mem::take(is_file)
    {
        words.push(word);
    }
}

/// The commands of a script for a POSIX shell, as far as documents use its grammar: quotes,
/// continued lines, comments, pipes, lists and redirections, whose files are left out.
fn shell_commands(script: &str) -> Result<Vec<ShellCommand>, String> {
    let mut commands = Vec::new();
    let (mut line, mut begins) = (1, 1);
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut is_file = false;
    let mut quote = None;
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        if words.is_empty() && word.is_none() {
            begins = line;
        }
        line += usize::from(letter == '\n');
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None | Some('"'), '\\') => match letters.next() {
                Some('\n') => line += 1,
                Some(next) => word.get_or_insert_default().push(next),
                None => {}
            },
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => {
                while letters.next_if(|&letter| letter != '\n').is_some() {}
            }
            (None, '>' | '<') => {
                // A number is that of the stream.
                word.take_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
                end_word(&mut word, &mut words, &mut is_file);
                while letters.next_if(|&letter| matches!(letter, '>' | '<' | '&')).is_some() {}
                is_file = true;
            }
            (None, '\n' | ';' | '|' | '&') => {
                end_word(&mut word, &mut words, &mut is_file);
                if !words.is_empty() {
                    commands.push((begins, std::mem::take(&mut words)));
                }
            }
            (None, _) if letter.is_whitespace() => {
                end_word(&mut word, &mut words, &mut is_file);
            }
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote of the command in line {begins} is not closed"));
    }
    end_word(&mut word, &mut words, &mut is_file);
    if !words.is_empty() {
        commands.push((begins, words));
    }
    Ok(commands)
}

/// The words of a command from `alitok` on, if it runs the program: by name, by Cargo, or by what
/// launches processes.
fn of_program(words: &[String]) -> Option<Vec<&str>> {
    let is_setting = |word: &&String| {
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        };
        word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name))
    };
    let settings = words.iter().take_while(is_setting).count();
    let words: Vec<&str> = words[settings..].iter().map(String::as_str).collect();
    let is_program = |word: &&str| *word == "alitok" || word.ends_with("/alitok");
    let first = words.first()?;
    if is_program(first) {
        return Some(words);
    }
    if *first == "cargo" {
        let end = words.iter().position(|word| *word == "--")?;
        let package = words[..end].iter().position(|word| matches!(*word, "-p" | "--package"));
        let is_ours = package.is_none_or(|at| words[at + 1] == "alitok");
        let runs = words.get(1) == Some(&"run") && !words[..end].contains(&"--example");
        return (is_ours && runs).then(|| [&["alitok"], &words[end + 1..]].concat());
    }
    let program = words.iter().position(is_program)?;
    LAUNCHERS.contains(first).then(|| words[program..].to_vec())
}

/// The lines of a Markdown text's blocks of shell; all others are empty, so that lines keep their
/// numbers.
fn shell_blocks(text: &str) -> String {
    let mut block = None;
    let mut script = String::new();
    for line in text.lines() {
        match (block, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => block = Some(language.trim() == "sh"),
            (Some(_), Some(_)) => block = None,
            (Some(true), None) => script.push_str(line),
            _ => {}
        }
        script.push('\n');
    }
    script
}

/// The commands in the comments of a settings file, which stand further in than prose.
fn in_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.strip_prefix("#   ").unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// The inline code of a Markdown text that begins with `alitok`, and the line it begins in.
fn inline_commands(text: &str) -> Vec<(usize, String)> {
    let mut prose = String::new();
    let mut is_block = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        if !is_block && !is_fence {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    let mut line = 1;
    let mut found = Vec::new();
    for (index, span) in prose.split('`').enumerate() {
        let code = span.replace('\n', " ");
        if index % 2 == 1 && code.starts_with("alitok ") {
            found.push((line, code));
        }
        line += span.matches('\n').count();
    }
    found
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files with an ending in a folder and, if `deep`, below it, in order.
fn files(folder: &str, ending: &str, deep: bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() && deep {
            found.extend(files(&name, ending, deep));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push((
                name.trim_start_matches("./").to_owned(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
    found
}

/// What is written for people. Two pages are left out: the log, whose commands are those of their
/// time, and the page of the command line, which is the help.
fn documents() -> Vec<(String, String)> {
    let mut all = files(".", "md", false);
    all.retain(|(name, _)| name != "CHANGELOG.md");
    all.extend(files("docs", "md", false));
    all.extend(files("data", "md", false));
    all.extend(files("models", "md", true));
    all.retain(|(name, _)| !matches!(&name[..], "docs/log.md" | "docs/cli.md"));
    all
}

/// Why the program does not take these words, if it does not.
fn refusal(words: &[&str]) -> Option<clap::Error> {
    let error = Arguments::try_parse_from(words).err()?;
    let shows = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!shows).then_some(error)
}

/// Checks scripts, each with the name of its document, and gives the number of commands that run
/// the program.
///
/// # Panics
/// If the program does not take one of them.
fn check(scripts: impl IntoIterator<Item = (String, String)>) -> usize {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (name, script) in scripts {
        let commands = shell_commands(&script).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (line, words) in commands {
            let Some(words) = of_program(&words) else { continue };
            count += 1;
            if let Some(error) = refusal(&words) {
                wrong.push(format!("{name}:{line}: {}\n{error}", words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    count
}

#[test]
fn should_take_the_commands_of_the_documents() {
    let scripts = documents().into_iter().map(|(name, text)| (name, shell_blocks(&text)));
    let count = check(scripts);
    assert!(count >= 15, "only {count} commands were found");
}

#[test]
fn should_take_the_commands_of_recipes_and_protocols() {
    let settings =
        files("recipes", "toml", true).into_iter().chain(files("protocols", "toml", false));
    let count = check(settings.map(|(name, text)| (name, in_comments(&text))));
    assert!(count >= 20, "only {count} commands were found");
}

#[test]
fn should_take_the_examples_of_its_help() {
    fn collect(command: &Command, examples: &mut Vec<(String, String)>) {
        if let Some(help) = command.get_after_help() {
            let help = help.to_string();
            // Prose begins at the margin.
            let lines = help.lines().map(|line| if line.starts_with("  ") { line } else { "" });
            let script = lines.map(|line| format!("{line}\n")).collect();
            examples.push((format!("the help of {}", command.get_name()), script));
        }
        command.get_subcommands().for_each(|below| collect(below, examples));
    }
    let mut examples = Vec::new();
    collect(&Arguments::command(), &mut examples);
    let count = check(examples);
    assert!(count >= 20, "only {count} examples were found");
}

#[test]
fn should_know_the_verbs_and_flags_that_prose_names() {
    let is_placeholder = |word: &str| {
        word.contains(|letter: char| letter.is_ascii_uppercase() || letter == '…')
            && !word.contains(|letter: char| letter.is_ascii_lowercase())
    };
    let mut wrong = Vec::new();
    for (name, text) in documents() {
        for (line, span) in inline_commands(&text) {
            let commands =
                shell_commands(&span).unwrap_or_else(|error| panic!("{name}:{line}: {error}"));
            let Some((_, words)) = commands.into_iter().next() else { continue };
            let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
            // `alitok VERB --help` and the like.
            if words.get(1).is_some_and(|word| is_placeholder(word)) {
                continue;
            }
            words.retain(|word| *word != "…");
            let Some(error) = refusal(&words) else { continue };
            let is_fine = match error.kind() {
                // Prose names what it is about and leaves the rest out.
                ErrorKind::MissingRequiredArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
                ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
                    words.iter().any(|word| is_placeholder(word))
                }
                _ => false,
            };
            if !is_fine {
                wrong.push(format!("{name}:{line}: {span}\n{error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn should_find_the_program_in_a_script_and_refuse_a_wrong_flag() {
    let text = "Look:\n\n```sh\n# alitok comment\nA=1 alitok data inspect --data photos/   # no such flag\n\
                cat 'a b' | ./target/release/alitok generate --class \"Food & Drink\" \\\n    \
                --out x.png 2>&1 > log && echo alitok\ncargo run --release -- devices\n\
                cargo run -p alitok-tools -- bundle\nmpirun -n 2 alitok devices\n```\n\
                ```text\nalitok nonsense\n```\n";
    let commands = shell_commands(&shell_blocks(text)).unwrap();
    let found: Vec<_> = commands
        .iter()
        .filter_map(|(line, words)| Some((*line, of_program(words)?[1..].join("|"))))
        .collect();
    let expected = [
        (5, "data|inspect|--data|photos/"),
        (6, "generate|--class|Food & Drink|--out|x.png"),
        (8, "devices"),
        (10, "devices"),
    ];
    assert_eq!(found, expected.map(|(line, words)| (line, words.to_owned())));
    assert!(refusal(&["alitok", "data", "inspect", "--data", "photos/"]).is_some());
    assert!(refusal(&["alitok", "data", "inspect", "photos/"]).is_none());
    assert!(shell_commands("alitok generate --class 'Flags").is_err());
    assert_eq!(
        inline_commands("a `b` of\n`alitok\ndevices` c"),
        [(2, "alitok devices".to_owned())]
    );
}

#[test]
fn should_have_every_page_in_the_book_and_no_link_out_of_it() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for (name, text) in files("docs", "md", true) {
        let page = name.strip_prefix("docs/").unwrap();
        let folder = Path::new(page).parent().unwrap();
        if page != "SUMMARY.md" {
            assert!(summary.contains(&format!("]({page})")), "docs/SUMMARY.md lacks {page}");
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let target = root().join("docs").join(folder).join(link);
            let target =
                target.canonicalize().unwrap_or_else(|_| panic!("{name}: {link} is not there"));
            // The HTML holds what lies in `docs`.
            let book = root().join("docs").canonicalize().unwrap();
            assert!(target.starts_with(book), "{name}: {link} leads out of the book");
        }
    }
}
