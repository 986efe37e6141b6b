//! Models by the names that people give.

use std::{fs, path::Path};

use fixtures::home;
use model::{Model, ModelError, named};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn should_find_a_bundled_model_a_folder_and_that_of_a_run() {
    let mini = home().path("models/mini").unwrap();
    let bundled = Model::named("mini", &home()).unwrap();
    assert_eq!(bundled.path(), mini);

    let folder = tempfile::tempdir().unwrap();
    let [own, run] = ["own/mini", "run"].map(|name| folder.path().join(name));
    copy(&mini, &own);
    copy(&mini, &run.join("model"));
    let open = |path: &Path| Model::named(path.to_str().unwrap(), &home()).unwrap();
    assert_eq!(open(&own).path(), own);
    assert_eq!(open(&own).config, bundled.config);
    assert_eq!(open(&run).path(), run.join("model"));
    assert_eq!(open(&run).classes, bundled.classes);
    // A path is a folder, even if it ends like the name of a bundled model.
    assert_eq!(named::folder("./mini", &home()).unwrap(), Path::new("./mini"));
    assert_eq!(named::of_run(folder.path()), folder.path());
}

#[test]
fn should_say_what_is_missing_and_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let error = Model::named("mini", &files::Home::at(empty.path())).unwrap_err();
    assert!(matches!(error, ModelError::Home(_)));
    let told = error.to_string();
    assert!(told.contains("models/mini") && told.contains("ALITOK_HOME"), "{told}");

    let error = Model::named(empty.path().to_str().unwrap(), &home()).unwrap_err();
    assert!(matches!(error, ModelError::NoModel { missing: "config.json", .. }), "{error}");
    assert!(error.to_string().contains(empty.path().to_str().unwrap()), "{error}");
}
