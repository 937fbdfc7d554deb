//! What programs plot with the real matplotlib, from the set that comes with the
//! server: pictures come back, and fonts are those of the machine.

use std::fs;

use crate::support::{Done, Home};

/// Runs a program and returns how it ended and the files that it left, by name.
fn plot(home: &Home, code: &str) -> (Done, Vec<String>) {
    let out = tempfile::tempdir().unwrap();
    let program = format!("import matplotlib.pyplot as plt\n{code}");
    let place = out.path().join("out");
    let words = ["run", "--timeout", "30", "-c", &program, "--out"];
    let done = home.run(&[&words[..], &[place.to_str().unwrap()]].concat());
    let entries = fs::read_dir(&place).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    (done, names)
}

fn pictures(home: &Home) {
    let check = |code: &str, expected: &[&str]| {
        let (done, names) = plot(home, code);
        assert_eq!(done.code, Some(0), "{code}: {done:?}");
        assert_eq!(names, expected, "{code}: {done:?}");
        assert!(!done.stderr.contains("Warning"), "{code}: {done:?}");
    };
    check("plt.plot([1, 2]); plt.show()", &["figure-1.png"]);
    check("plt.plot([1, 2])", &["figure-1.png"]);
    check(
        "plt.plot([1, 2]); plt.savefig('a.png'); plt.show()",
        &["a.png"],
    );
    check(
        "plt.plot([1, 2]); plt.show(); plt.savefig('a.png')",
        &["a.png", "figure-1.png"],
    );
    check(
        "plt.plot([1, 2]); plt.show(); plt.plot([2, 1]); plt.show()\nassert open('figure-1.png', 'rb').read() != open('figure-2.png', 'rb').read()",
        &["figure-1.png", "figure-2.png"],
    );
    check(
        "import matplotlib; matplotlib.use('Agg'); plt.figure(); plt.show(); plt.bar(['a'], [1]); plt.show()",
        &["figure-1.png"],
    );
    check(
        "import os; os.mkdir('d'); os.chdir('d'); open('../figure-1.png', 'w').write('own'); plt.subplots(); plt.show()",
        &["figure-1.png", "figure-2.png"],
    );
    check("plt.plot([1]); plt.close('all')", &[]);
    let (failed, names) = plot(home, "plt.plot([1]); 1 / 0");
    assert_eq!(
        (failed.code, names.as_slice()),
        (Some(1), &["figure-1.png".to_owned()][..])
    );
    let saving = "import io; plt.plot([1]); plt.gcf().savefig(io.BytesIO()); plt.savefig('a.xyz')";
    let (failed, _) = plot(home, saving);
    assert!(
        failed.stderr.contains("Format 'xyz' is not supported"),
        "{failed:?}"
    );
}

#[test]
fn plots_come_back_with_the_fonts_of_the_machine() {
    let home = Home::new();
    let installed = home.run(&["packages", "install", "--language", "python"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    pictures(&home);
    super::gallery::gallery(&home);

    // Where a font is missing, one warning tells it, at the program's own line.
    let (warned, _) = plot(
        &home,
        "plt.title('\\U000F0000\\U000F0001')\nplt.savefig('a.png')",
    );
    let warnings = warned.stderr.matches("UserWarning: Glyph").count();
    assert_eq!(warnings, 1, "{warned:?}");
    assert!(
        warned.stderr.contains("main.py:3: UserWarning"),
        "{warned:?}"
    );

    // A font that came after the packages is seen, and the next set knows it.
    let tree = home.path().join("packages/python/current/tree");
    let links = "import os; print(*(e.is_symlink() for e in os.scandir(os.path.expanduser('~/.cache/matplotlib'))))";
    assert_eq!(
        plot(&home, links).0.out(),
        "True\n",
        "the list that was kept"
    );
    let seen = fs::read_to_string(tree.join("kept/seen")).unwrap();
    assert!(seen.contains(" /usr/share/fonts\n"), "{seen}");
    fs::write(tree.join("kept/seen"), "1 /usr/share/fonts\n").unwrap();
    assert_eq!(plot(&home, links).0.out(), "False\n", "a list of its own");
    let listed = home.run(&["packages", "list", "--language", "python"]);
    let told = "A newer set can be installed";
    assert!(listed.stderr.contains(told), "{listed:?}");
    let again = home.run(&["packages", "install", "--language", "python"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::read_to_string(tree.join("kept/seen")).unwrap(), seen);
}
