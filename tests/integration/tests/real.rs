//! The real services, end to end: what a person who runs `cofferdam do` sees. One test a promise; nothing may be left
//! behind by any of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use cofferdam_integration::install::Install;

#[test]
fn do_ends_with_the_status_of_its_command() {
    let install = Install::with_services("real-status").unwrap();
    for (command, code) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 3"], 3),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let output = install.run(&[&["do", "--"], command].concat()).unwrap();
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {says}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn environment_and_directory_are_those_asked_for() {
    let install = Install::with_services("real-env").unwrap();
    let output = install.run(&["do", "--env", "A=b c", "--cwd", "/usr", "--", "sh", "-c", "echo \"$A\"; pwd"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b c\n/usr\n", "{}", String::from_utf8_lossy(&output.stderr));
    install.nothing_left().unwrap();
}

#[test]
fn nothing_on_the_host_changes() {
    let install = Install::with_services("real-host").unwrap();
    let mark = install.folder.join("mark");
    let script = format!("echo x > {0} && cat {0}", mark.display());
    let output = install.run(&["do", "--", "sh", "-c", &script]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!mark.exists(), "a file written inside is on the host");
    install.nothing_left().unwrap();
}
