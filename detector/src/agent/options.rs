//! What the flow on one node is asked to do, in its checked form.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

/// Settings of one run. What is `None` is left to the program or has no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Stop after so many kills; at least 1.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Use this method and no other, instead of the best that the kernel offers.
    pub method: Option<OomMethod>,
}

/// A way to learn of OOM kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OomMethod {
    /// Raw tracepoint `mark_victim`, joined with the decision by a trampoline on `oom_kill_process`.
    Fentry,
    /// The same with a kprobe in place of the trampoline.
    Kprobe,
    /// Raw tracepoints alone.
    RawTracepoint,
}

impl OomMethod {
    /// All methods, best first.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::RawTracepoint];

    /// Its name on the command line and in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::RawTracepoint => "raw_tracepoint",
        }
    }
}

impl fmt::Display for OomMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A method that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no method of detector `oom`: must be `fentry`, `kprobe` or `raw_tracepoint`")]
pub struct UnknownMethod(String);

impl FromStr for OomMethod {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| UnknownMethod(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_found_by_its_name() {
        for method in OomMethod::ALL {
            assert_eq!(method.name().parse(), Ok(method));
        }
    }

    #[test]
    fn an_unknown_method_is_refused_with_the_rule() {
        let error = "FENTRY".parse::<OomMethod>().expect_err("names are exact");
        assert!(error.to_string().starts_with("`FENTRY` is no method"), "{error}");
        for method in OomMethod::ALL {
            assert!(error.to_string().contains(method.name()), "{error}");
        }
    }
}
