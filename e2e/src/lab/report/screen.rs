//! Where the lab's words go: standard output, with colours and movement only for a terminal.

use std::io::{IsTerminal, Write};

/// What a piece of text means; the colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Ordinary text.
    #[default]
    Plain,
    /// A heading.
    Title,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Less important.
    Dim,
    /// Worth a look: a tunnel, a change.
    Accent,
}

impl Tone {
    /// The SGR parameters (ECMA-48 section 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Title => "1",
            Tone::Good => "32",
            Tone::Bad => "31;1",
            Tone::Dim => "2",
            Tone::Accent => "36",
        }
    }
}

/// How standard output may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Colours.
    pub colour: bool,
    /// Lines that are written over: spinners.
    pub live: bool,
    /// Nothing but what [`Screen::result`] writes.
    pub quiet: bool,
}

impl Screen {
    /// What standard output is. `NO_COLOR` (any value but the empty one) and `TERM=dumb` are
    /// respected.
    pub fn detect() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal();
        Self {
            colour: terminal && !dumb && !set("NO_COLOR"),
            live: terminal && !dumb,
            quiet: false,
        }
    }

    /// A screen without colours and movement.
    pub fn plain() -> Self {
        Self {
            colour: false,
            live: false,
            quiet: false,
        }
    }

    /// The same, but only results are written.
    pub fn silenced(self) -> Self {
        Self {
            quiet: true,
            live: false,
            ..self
        }
    }

    /// Text in the colour of its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if self.colour && tone != Tone::Plain {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// Writes a line, unless silenced.
    pub fn line(self, text: &str) {
        if !self.quiet {
            self.result(text);
        }
    }

    /// Writes a heading after an empty line.
    pub fn title(self, text: &str) {
        self.line("");
        self.line(&self.paint(Tone::Title, text));
    }

    /// Writes a line even when silenced. A reader who went away (`| head`) is no error.
    pub fn result(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// Writes over the line of the cursor, without ending it.
    pub(crate) fn overwrite(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\r\x1b[2K{text}");
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colours_in_plain_text() {
        assert_eq!(Screen::plain().paint(Tone::Bad, "x"), "x");
        let colourful = Screen {
            colour: true,
            ..Screen::plain()
        };
        assert_eq!(colourful.paint(Tone::Good, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(colourful.paint(Tone::Plain, "x"), "x");
    }
}
