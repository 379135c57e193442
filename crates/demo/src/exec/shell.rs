//! The programs of the demo: a few words it knows, and an echo for everything else. Pure.

use super::channels::Outbound;

/// Bytes of one typed line; what goes beyond is dropped.
const LONGEST_LINE: usize = 4096;

const PROMPT: &str = "demo$ ";
const BANNER: &str = "This is the Moorline demo, not a container: known words are whoami, hostname, echo, help and exit; \
                      every other line comes back.";

/// How a program is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting {
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    /// The user that the request arrived as.
    pub(super) user: String,
    pub(super) pod: String,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Shell {
    setting: Setting,
    program: Program,
    line: Vec<u8>,
    last_code: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Cat,
    Sh,
    Ended,
}

impl Shell {
    /// Starts the program; what it says at once comes back with it.
    pub(super) fn start(setting: Setting) -> (Self, Vec<Outbound>) {
        let mut shell = Self { setting, program: Program::Ended, line: Vec::new(), last_code: 0 };
        let command = shell.setting.command.clone();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut said = Vec::new();
        match words.as_slice() {
            ["cat"] | ["cat", "-"] => shell.program = Program::Cat,
            ["sh" | "bash" | "ash" | "/bin/sh" | "/bin/bash", "-c", script, ..] => {
                shell.program = Program::Sh;
                shell.run_script(script, &mut said);
                let code = shell.last_code;
                shell.exit(code, &mut said);
            }
            ["sh" | "bash" | "ash" | "/bin/sh" | "/bin/bash", ..] => {
                shell.program = Program::Sh;
                if shell.setting.tty {
                    shell.say(&format!("{BANNER}\n{PROMPT}"), &mut said);
                }
            }
            words => {
                shell.program = Program::Sh;
                if !shell.known(words, &mut said) {
                    let what = words.first().copied().unwrap_or_default();
                    shell.complain(
                        &format!(
                            "{what:?}: no such program; this is not a container. Try: sh, cat, echo, whoami, hostname\n"
                        ),
                        &mut said,
                    );
                    shell.last_code = 127;
                }
                let code = shell.last_code;
                shell.exit(code, &mut said);
            }
        }
        if !shell.setting.stdin {
            said.extend(shell.end());
        }
        (shell, said)
    }

    /// Bytes from the client.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Vec<Outbound> {
        let mut said = Vec::new();
        if self.program == Program::Cat && !self.setting.tty {
            said.push(Outbound::Stdout(bytes.to_vec()));
            return said;
        }
        for &byte in bytes {
            if self.setting.tty {
                self.key(byte, &mut said)
            } else {
                self.byte(byte, &mut said)
            }
            if self.program == Program::Ended {
                break;
            }
        }
        said
    }

    /// There is no more input.
    pub(super) fn end(&mut self) -> Vec<Outbound> {
        let mut said = Vec::new();
        if !self.line.is_empty() && !self.setting.tty {
            self.enter(&mut said);
        }
        let code = self.last_code;
        self.exit(code, &mut said);
        said
    }

    fn byte(&mut self, byte: u8, said: &mut Vec<Outbound>) {
        match byte {
            b'\n' => self.enter(said),
            b'\r' => {}
            other => self.keep(other),
        }
    }

    /// A key of a terminal in raw mode: the echo is ours.
    fn key(&mut self, byte: u8, said: &mut Vec<Outbound>) {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        match byte {
            b'\r' | b'\n' => {
                self.say("\n", said);
                self.enter(said);
                self.prompt(said);
            }
            8 | 127 if self.erase() => self.say("\u{8} \u{8}", said),
            CTRL_C if self.program == Program::Cat => self.exit(130, said),
            CTRL_C => {
                self.line.clear();
                self.say("^C\n", said);
                self.prompt(said);
            }
            CTRL_D if self.line.is_empty() => {
                self.say("\n", said);
                self.exit(self.last_code, said);
            }
            ..0x20 | 127 => {}
            printable => {
                self.keep(printable);
                said.push(Outbound::Stdout(vec![printable]));
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.line.len() < LONGEST_LINE {
            self.line.push(byte);
        }
    }

    /// Takes back one character. False when there is none.
    fn erase(&mut self) -> bool {
        let is_continuation = |byte: u8| byte & 0xC0 == 0x80;
        let mut last = self.line.pop();
        let erased = last.is_some();
        while last.is_some_and(is_continuation) {
            last = self.line.pop();
        }
        erased
    }

    fn enter(&mut self, said: &mut Vec<Outbound>) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        match self.program {
            Program::Cat => self.say(&format!("{line}\n"), said),
            Program::Sh => self.run_script(&line, said),
            Program::Ended => {}
        }
    }

    fn prompt(&self, said: &mut Vec<Outbound>) {
        if self.program == Program::Sh {
            self.say(PROMPT, said);
        }
    }

    fn run_script(&mut self, script: &str, said: &mut Vec<Outbound>) {
        for statement in script.split([';', '\n']).map(str::trim).filter(|statement| !statement.is_empty()) {
            if self.program == Program::Ended {
                return;
            }
            let words: Vec<&str> = statement.split_whitespace().collect();
            if !self.known(&words, said) {
                self.say(&format!("demo echo: {statement}\n"), said);
                self.last_code = 0;
            }
        }
    }

    /// Runs one of the known words. False when it is not one.
    fn known(&mut self, words: &[&str], said: &mut Vec<Outbound>) -> bool {
        self.last_code = match words {
            ["echo", rest @ ..] => {
                self.say(&format!("{}\n", rest.join(" ")), said);
                0
            }
            ["whoami"] => {
                self.say(&format!("{}\n", self.setting.user), said);
                0
            }
            ["hostname"] => {
                self.say(&format!("{}\n", self.setting.pod), said);
                0
            }
            ["help"] => {
                self.say(&format!("{BANNER}\n"), said);
                0
            }
            ["true"] => 0,
            ["false"] => 1,
            ["exit"] => {
                self.exit(self.last_code, said);
                self.last_code
            }
            ["exit", code] => {
                let code = code.parse().unwrap_or(2);
                self.exit(code, said);
                code
            }
            _unknown => return false,
        };
        true
    }

    fn exit(&mut self, code: u8, said: &mut Vec<Outbound>) {
        if self.program != Program::Ended {
            self.program = Program::Ended;
            said.push(Outbound::Exit(code));
        }
    }

    fn say(&self, text: &str, said: &mut Vec<Outbound>) {
        said.push(Outbound::Stdout(self.lines(text)));
    }

    fn complain(&self, text: &str, said: &mut Vec<Outbound>) {
        // A terminal has one stream only.
        let bytes = self.lines(&format!("moorline demo: {text}"));
        said.push(if self.setting.tty { Outbound::Stdout(bytes) } else { Outbound::Stderr(bytes) });
    }

    fn lines(&self, text: &str) -> Vec<u8> {
        if self.setting.tty { text.replace('\n', "\r\n").into_bytes() } else { text.as_bytes().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: &[&str], stdin: bool, tty: bool) -> (Shell, Vec<Outbound>) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Shell::start(Setting { command, stdin, tty, user: "ada".to_owned(), pod: "echo".to_owned() })
    }

    fn stdout(said: &[Outbound]) -> String {
        said.iter()
            .filter_map(|said| match said {
                Outbound::Stdout(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                Outbound::Stderr(_) | Outbound::Exit(_) => None,
            })
            .collect()
    }

    #[test]
    fn programs_say_what_they_should_and_end_with_their_code() {
        for (command, output, code) in [
            (vec!["echo", "hello", "world"], "hello world\n", 0),
            (vec!["whoami"], "ada\n", 0),
            (vec!["false"], "", 1),
            (vec!["cat"], "", 0),
            (vec!["sh", "-c", "echo a; exit 3; echo b"], "a\n", 3),
            (vec!["ls"], "", 127),
        ] {
            let (_, said) = start(&command, false, false);
            assert_eq!(stdout(&said), output, "{command:?}");
            assert_eq!(said.last(), Some(&Outbound::Exit(code)), "{command:?}");
            assert_eq!(said.iter().filter(|said| matches!(said, Outbound::Exit(_))).count(), 1);
        }
    }

    #[test]
    fn cat_gives_back_every_byte() {
        let (mut shell, said) = start(&["cat"], true, false);
        assert!(said.is_empty());
        assert_eq!(shell.input(b"\x00\xff\n"), [Outbound::Stdout(b"\x00\xff\n".to_vec())]);
        assert_eq!(shell.end(), [Outbound::Exit(0)]);
    }

    #[test]
    fn a_piped_shell_runs_lines_and_echoes_the_rest() {
        let (mut shell, _) = start(&["sh"], true, false);
        assert_eq!(stdout(&shell.input(b"who")), "");
        assert_eq!(stdout(&shell.input(b"ami\nls -l\n")), "ada\ndemo echo: ls -l\n");
        assert_eq!(shell.input(b"exit 4\nwhoami\n"), [Outbound::Exit(4)]);
    }

    #[test]
    fn a_terminal_echoes_erases_and_leaves() {
        let (mut shell, said) = start(&["sh"], true, true);
        assert!(stdout(&said).contains("not a container") && stdout(&said).ends_with(PROMPT));
        let said = stdout(&shell.input("whoamé\u{7f}i\r".as_bytes()));
        assert!(said.ends_with("\u{8} \u{8}i\r\nada\r\ndemo$ "), "{said:?}");
        assert!(stdout(&shell.input(b"abc\x03")).ends_with("^C\r\ndemo$ "));
        assert_eq!(shell.input(b"\x04").last(), Some(&Outbound::Exit(0)));
    }
}
