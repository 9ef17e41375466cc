//! The terminal of people: its width, and whether it has colours.

/// What a page is shown on.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns of the terminal, a function, because windows are resized; `None` is no terminal and no limit.
    pub width: fn() -> Option<usize>,
    /// Whether colours may be used.
    pub colour: bool,
}

impl Screen {
    /// Standard output of this process. Colours only on a terminal that has some, and not if `NO_COLOR` is set to
    /// anything (<https://no-color.org>).
    #[must_use]
    pub fn of_standard_output() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|terminal| terminal == "dumb");
        let colour = rustix::termios::isatty(rustix::stdio::stdout()) && set("NO_COLOR").is_none() && !dumb;
        Self { width: standard_output_width, colour }
    }
}

fn standard_output_width() -> Option<usize> {
    let stdout = rustix::stdio::stdout();
    if !rustix::termios::isatty(stdout) {
        return None;
    }
    // A serial console says 0 columns.
    Some(rustix::termios::tcgetwinsize(stdout).map_or(0, |size| size.ws_col.into()))
}
