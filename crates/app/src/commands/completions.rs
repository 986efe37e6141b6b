//! `alitok completions`

use std::collections::BTreeSet;

use anyhow::Result;
use clap::{
    Arg, Command,
    builder::{PossibleValuesParser, Resettable},
};
use clap_complete::Shell;

use crate::{models, progress};

/// The bundled recipes: FOLDER/TRAINING and text.
const RECIPES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));
/// The bundled protocols: name and text.
const PROTOCOLS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/protocols.rs"));

/// What an argument takes, besides files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    TokenizerRecipe,
    GeneratorRecipe,
    TextRecipe,
    Class,
    Model,
    Protocol,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::TokenizerRecipe,
        Self::GeneratorRecipe,
        Self::TextRecipe,
        Self::Class,
        Self::Model,
        Self::Protocol,
    ];

    /// What the argument of a verb takes.
    fn of(verb: &str, argument: &Arg) -> Option<Self> {
        let free =
            argument.get_action().takes_values() && argument.get_possible_values().is_empty();
        match argument.get_long().filter(|_| free)? {
            "recipe" if verb == "generator" => Some(Self::GeneratorRecipe),
            "recipe" if verb == "text" => Some(Self::TextRecipe),
            "recipe" => Some(Self::TokenizerRecipe),
            "class" => Some(Self::Class),
            "model" => Some(Self::Model),
            "protocol" => Some(Self::Protocol),
            _ => None,
        }
    }

    /// The function of a script that offers the values. In the scripts that clap makes it stands in the
    /// place of a single value, since clap's own lists can hold neither names with blanks nor files.
    fn function(self) -> &'static str {
        match self {
            Self::TokenizerRecipe => "_alitok_tokenizer_recipes",
            Self::GeneratorRecipe => "_alitok_generator_recipes",
            Self::TextRecipe => "_alitok_text_recipes",
            Self::Class => "_alitok_classes",
            Self::Model => "_alitok_models",
            Self::Protocol => "_alitok_protocols",
        }
    }

    /// What is bundled of it.
    fn values(self) -> Vec<String> {
        let recipes = |fits: fn(&str) -> bool| {
            let all = RECIPES.iter().filter_map(|(path, _)| path.split_once('/'));
            let names: BTreeSet<&str> =
                all.filter(|(_, training)| fits(training)).map(|(name, _)| name).collect();
            names.into_iter().map(str::to_owned).collect()
        };
        match self {
            Self::TokenizerRecipe => recipes(|training| training.starts_with("tokenizer_")),
            Self::GeneratorRecipe => recipes(|training| training == "generator"),
            Self::TextRecipe => recipes(|training| training == "text"),
            // A program that was moved away from the bundled model knows no classes.
            Self::Class => {
                models::open("mini").map_or_else(|_| Vec::new(), |model| model.classes.to_vec())
            }
            Self::Model => vec!["mini".to_owned()],
            Self::Protocol => PROTOCOLS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }
}

pub(crate) fn run(command: Command, shell: Shell) -> Result<()> {
    // In memory first: clap panics where standard output is closed.
    progress::print(script(command, shell, &Kind::values).as_bytes())
}

/// The script of a shell.
fn script(command: Command, shell: Shell, values: &dyn Fn(Kind) -> Vec<String>) -> String {
    let mut command = match shell {
        Shell::Bash | Shell::Zsh | Shell::Fish => with_functions(command),
        // Their scripts complete no values.
        _ => command,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "alitok", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let all = Kind::ALL.map(|kind| (kind.function(), values(kind)));
    match shell {
        Shell::Bash => bash(&script, &all),
        Shell::Zsh => zsh(&script, &all),
        Shell::Fish => fish(&script, &all),
        _ => script,
    }
}

/// The command with the name of a function as the only value of arguments whose values are known.
fn with_functions(command: Command) -> Command {
    let verb = command.get_name().to_owned();
    let command = command.mut_args(|argument| match Kind::of(&verb, &argument) {
        Some(kind) => argument
            .default_value(Resettable::Reset)
            .value_parser(PossibleValuesParser::new([kind.function()])),
        None => argument,
    });
    command.mut_subcommands(with_functions)
}

/// A word that POSIX shells take as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn bash(script: &str, all: &[(&str, Vec<String>)]) -> String {
    let mut text = r#"# Offers names that begin with what was typed, quoted unless a quote is open, and files. Where no name
# fits, bash completes files by itself.
_alitok_offer() {
    local name typed="${COMP_WORDS[COMP_CWORD]}" open=""
    case "${typed}" in
        [\"\']*) open=1; typed="${typed:1}" ;;
        =) typed="" ;;
        *) typed="${typed//\\/}" ;;
    esac
    COMPREPLY=()
    for name in "$@"; do
        if [[ "${name}" == "${typed}"* ]]; then
            if [[ -z "${open}" ]]; then printf -v name %q "${name}"; fi
            COMPREPLY+=("${name}")
        fi
    done
    if [[ ${#COMPREPLY[@]} -gt 0 ]]; then
        while IFS= read -r name; do
            if [[ -z "${open}" ]]; then printf -v name %q "${name}"; fi
            COMPREPLY+=("${name}")
        done < <(compgen -f -- "${typed}")
    fi
}
"#
    .to_owned();
    let mut script = script.to_owned();
    for (function, values) in all {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        text += &format!("{function}() {{\n    _alitok_offer {}\n}}\n", values.join(" "));
        let list = format!("COMPREPLY=($(compgen -W \"{function}\" -- \"${{cur}}\"))");
        script = script.replace(&list, function);
    }
    text + &script
}

fn zsh(script: &str, all: &[(&str, Vec<String>)]) -> String {
    let mut text = String::new();
    let mut script = script.to_owned();
    for (function, values) in all {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        text += &format!(
            "{function}() {{\n    local -a names=({})\n    \
             _alternative 'names:name:compadd -a names' 'files:file:_files'\n}}\n",
            values.join(" ")
        );
        script = script.replace(&format!(":({function})"), &format!(":{function}"));
    }
    // The first line says what the file is.
    match script.split_once('\n') {
        Some((first, rest)) => format!("{first}\n\n{text}{rest}"),
        None => script,
    }
}

fn fish(script: &str, all: &[(&str, Vec<String>)]) -> String {
    // In fish's quotes a backslash stands before quotes and backslashes alone.
    let quoted = |text: &String| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
    let mut text = String::new();
    let mut script = script.to_owned();
    for (function, values) in all {
        let values: Vec<String> = values.iter().map(quoted).collect();
        text += &format!("function {function}\n    printf '%s\\n' {}\nend\n", values.join(" "));
        let list = format!("-r -f -a \"{function}\\t''\"");
        script = script.replace(&list, &format!("-r -F -a \"({function})\""));
    }
    text + &script
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use clap::CommandFactory;

    use super::*;
    use crate::commands::Arguments;

    fn script_of(shell: Shell) -> String {
        script(Arguments::command(), shell, &Kind::values)
    }

    /// What bash offers for the last of these words, in a folder with a file called `Flagship.txt`.
    fn offered(words: &[&str]) -> Vec<String> {
        let scratch = fixtures::Scratch::new();
        std::fs::write(scratch.path("Flagship.txt"), "").unwrap();
        std::fs::write(scratch.path("alitok.bash"), script_of(Shell::Bash)).unwrap();
        // As bash calls it: the command, the word without its quote, and the word before.
        let call = r#"
            source alitok.bash
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            typed="${COMP_WORDS[COMP_CWORD]}"
            _alitok alitok "${typed#[\"\']}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let arguments = ["--norc", "-c", call, "bash"];
        let output = Process::new("bash")
            .args(arguments.iter().chain(words))
            .current_dir(scratch.folder())
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn should_offer_bundled_names_and_files_in_bash() {
        let has_bash = Process::new("bash").arg("--version").output();
        if cfg!(not(unix)) || has_bash.is_err() {
            return;
        }
        let classes = offered(&["alitok", "generate", "--class", ""]);
        assert!(classes.contains(&r"Smileys\ \&\ Emotion".to_owned()), "{classes:?}");
        assert!(classes.contains(&"Flagship.txt".to_owned()), "{classes:?}");
        assert_eq!(offered(&["alitok", "generate", "--class", "Flag"]), ["Flags", "Flagship.txt"]);
        // However the beginning is quoted.
        let smileys = r"Smileys\ \&\ Emotion";
        assert_eq!(offered(&["alitok", "generate", "--class", r"Smileys\ \&"]), [smileys]);
        assert_eq!(
            offered(&["alitok", "generate", "--class", "\"Smileys & E"]),
            ["Smileys & Emotion"]
        );
        let recipes = offered(&["alitok", "train", "tokenizer", "--recipe", "mini"]);
        assert!(recipes.contains(&"mini-sharp".to_owned()), "{recipes:?}");
        let recipes = offered(&["alitok", "train", "generator", "--recipe", "paper-x"]);
        assert_eq!(recipes, ["paper-xl", "paper-xl-16384"]);
        let protocols = offered(&["alitok", "evaluate", "run", "--protocol", "mini-st"]);
        assert_eq!(protocols, ["mini-stage-1", "mini-stage-2"]);
        assert_eq!(offered(&["alitok", "analyze", "codes", "--model", "m"]), ["mini"]);
    }

    #[test]
    fn should_offer_functions_and_no_placeholders() {
        for (shell, list) in [
            (Shell::Bash, "compgen -W \"_alitok_"),
            (Shell::Zsh, "(_alitok_"),
            (Shell::Fish, "\"_alitok_"),
        ] {
            let script = script_of(shell);
            assert!(!script.contains(list), "{shell}");
            for kind in Kind::ALL {
                // Where it is made, and where it is used.
                let used = script.matches(kind.function()).count();
                assert!(used > 1, "{shell}: {used} {}", kind.function());
            }
            for name in ["mini-sharp", "paper-xl", "'Smileys & Emotion'", "Flags", "mini-unguided"]
            {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
        for shell in [Shell::Elvish, Shell::PowerShell] {
            assert!(!script_of(shell).contains("_alitok_"), "{shell}");
        }
    }

    #[test]
    fn should_quote_what_a_shell_would_read_otherwise() {
        assert_eq!(quoted("it's $(here)"), r"'it'\''s $(here)'");
        let values = |_: Kind| vec![r"it's a \ $(x)".to_owned()];
        let script = script(Arguments::command(), Shell::Fish, &values);
        assert!(script.contains(r"'it\'s a \\ $(x)'"));
    }

    #[test]
    fn should_leave_parsing_free() {
        let parsed = Arguments::command()
            .try_get_matches_from(["alitok", "generate", "--class", "mine", "--out", "x.png"]);
        assert!(parsed.is_ok());
    }
}
