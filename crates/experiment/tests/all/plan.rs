//! Plans of experiments: what they refuse, and in which order they work.

use experiment::Ablation;

const PLAN: &str = r#"
data = "bundled"
heldout = "bundled:heldout"
views = "center"

[tokenizer]
set = ["steps=4", "checkpoint_every=100", "warmup_steps=1", "phases=[]", "architecture.codes=16"]

[second_stage]
recipe = "mini"

[generator]
recipe = "mini"

[evaluation]
samples = 4
seed = 0

[[rows]]
name = "A"
title = "bidirectional"
recipe = "table-3-a"
seeds = [1, 2, 3]

[[rows]]
name = "B"
title = "causal"
recipe = "table-3-b"
seeds = [2, 1]

[[rows]]
name = "F"
title = "second stage"
second_stage_of = "B"
seeds = [2]
"#;

fn read(text: &str) -> Result<Ablation, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, text).unwrap();
    experiment::read(path.to_str().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn should_finish_each_round_of_seeds_before_the_next() {
    let plan = read(PLAN).unwrap();
    let order: Vec<String> = plan.units().iter().map(ToString::to_string).collect();
    let wanted = ["A, seed 1", "B, seed 2", "F, seed 2", "A, seed 2", "B, seed 1", "A, seed 3"];
    assert_eq!(order, wanted);
    let second = plan.units()[2];
    assert_eq!(plan.first_stage_of(second).unwrap().to_string(), "B, seed 2");
    assert_eq!(plan.first_stage_of(plan.units()[0]), None);
}

#[test]
fn should_change_nothing_between_rows_but_what_they_name() {
    let plan = read(PLAN).unwrap();
    let units = plan.units();
    let a = plan.stage_one(units[0]).unwrap().unwrap();
    let b = plan.stage_one(units[4]).unwrap().unwrap();
    assert_eq!((a.schedule.steps, a.architecture.codes), (4, 16));
    assert_eq!(a.schedule, b.schedule);
    assert_eq!(a.architecture.encoder, b.architecture.encoder);
    assert_ne!(a.architecture, b.architecture);
    assert_eq!(plan.stage_one(units[1]).unwrap().unwrap().schedule.seed, 2);
    assert!(plan.stage_one(units[2]).unwrap().is_none());
    assert_eq!(plan.stage_two(units[2]).unwrap().unwrap().schedule.seed, 2);
}

#[test]
fn should_refuse_rows_that_do_not_compare() {
    let refused = |from: &str, to: &str, why: &str| {
        assert!(PLAN.contains(from), "{from}");
        let told = read(&PLAN.replace(from, to)).unwrap_err();
        assert!(told.contains(why), "{told}");
    };
    // The second stage needs the tokens of B with its seed, which would come after it.
    refused("seeds = [2, 1]", "seeds = [1, 2]", "row F: B must have its seeds");
    let more = |set: &str| format!("recipe = \"table-3-b\"\nset = [\"{set}\"]");
    let b = "recipe = \"table-3-b\"";
    refused(b, &more("steps=5"), "A and B differ in schedule");
    refused(b, &more("architecture.codes=32"), "A and B differ");
    let another = |set: &str| format!("{}\nanother_codebook = true", more(set));
    assert!(read(&PLAN.replace(b, &another("architecture.codes=32"))).is_ok());
    refused(b, &another("architecture.patch=8"), "A and B differ");
    refused(b, &more("architecture.patch=8"), "A and B differ");
    refused(b, &more("stepz=5"), "row B: recipe table-3-b: no setting is called `stepz`");
    refused("second_stage_of = \"B\"", "second_stage_of = \"G\"", "no row above it");
    refused("name = \"B\"", "name = \"a\"", "two rows are called a");
    refused("name = \"B\"", "name = \"../B\"", "letters, digits");
    refused("seeds = [1, 2, 3]", "seeds = [1, 1]", "different");
    refused(b, "", "row B: give it a `recipe`");
    refused("views = \"center\"", "views = \"middle\"", "unknown variant `middle`");
    refused("samples = 4", "samples = 4\nguidance = 2", "no setting is called `guidance`");
}

#[test]
fn should_carry_plans_that_state_their_commands() {
    for name in ["small", "cifar"] {
        check_bundled(name);
    }
    let told = experiment::read("large").unwrap_err().to_string();
    assert!(told.contains("large") && told.contains("small"), "{told}");
    let plan = experiment::read("cifar").unwrap();
    assert!(plan.data.is_empty() && plan.heldout.is_empty(), "whose pictures is for the command");
}

fn check_bundled(name: &str) {
    let plan = experiment::read(name).unwrap();
    let order: Vec<String> = plan.units().iter().map(ToString::to_string).collect();
    assert_eq!(order[..4], ["A, seed 1", "B, seed 1", "D, seed 1", "F, seed 1"]);
    let path = fixtures::repository().join(format!("recipes/ablation/{name}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(&format!("alitok experiment ablation --plan {name} ")));

    // The sizes of Fig. 2's causal encoder follow from those of the baseline.
    let recipe = |name: &str| {
        let unit = plan.units().into_iter().find(|unit| unit.row.name == name).unwrap();
        plan.stage_one(unit).unwrap().unwrap().architecture
    };
    let aligned = recipe("D");
    use tokenizer::presets::*;
    assert_eq!(recipe("A"), without_alignment(aligned.clone()));
    assert_eq!(recipe("B"), without_prefix(aligned.clone()));
    assert_eq!(recipe("C"), without_auxiliary_loss(aligned.clone()));
    assert_eq!(recipe("causal-encoder"), with_causal_encoder(aligned));
}
