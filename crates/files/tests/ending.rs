//! A process that ends while it writes. In a binary of its own, because nothing can be written after.

use std::{
    fs,
    io::{self, Write},
    sync::mpsc,
    thread,
};

#[test]
fn should_leave_nothing_and_write_nothing_once_the_process_ends() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("old"), "old").unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let file = at("old");
    let writer = thread::spawn(move || {
        files::write_file(&file, |out| {
            out.write_all(b"new")?;
            begun.send(()).unwrap();
            may_end.recv().unwrap();
            Ok(())
        })
    });
    has_begun.recv().unwrap();
    let folder = files::replace_folder::<io::Error>(&at("folder"), |new| {
        fs::write(new.join("a"), "a")?;
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3);
        files::remove_unfinished();
        Ok(())
    });
    end.send(()).unwrap();
    let file = writer.join().unwrap();
    for error in [folder, file, files::write_file(&at("other"), |_| Ok(()))] {
        assert!(error.is_err());
    }
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "old");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}
