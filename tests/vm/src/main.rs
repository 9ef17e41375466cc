//! `guest`: process 1 of a test guest. Starts watchers, provokes each fault once, judges every watcher on it, prints one
//! verdict on the serial console and powers the machine off.
//!
//! What the host reads: `CASE <name> <method> ok|FAIL <reason>`, `DOCTOR <JSON>` and, last, `VERDICT passed=<n>
//! failed=<n>`. The method `kernel` stands for the kernel's own word, so that a wrong provocation does not look like a
//! wrong watcher.
//!
//! With `detector.last_words=CLASS` it has the kernel die instead: see [`last_words`].

mod alone;
mod complaint;
mod container;
mod hang;
mod init;
mod kmsg;
mod kube;
mod last_words;
mod line;
mod oom;
mod parameters;
mod report;
mod run;
mod watcher;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "culprit") {
        if let Err(cause) = last_words::culprit(&arguments) {
            eprintln!("GUEST culprit: {cause:#}");
        }
        return;
    }
    let outcome =
        init::prepare().and_then(|()| last_words::asked().map_or_else(run::all, |class| last_words::run(&class)));
    if let Err(cause) = outcome {
        println!("GUEST {cause:#}");
    }
    init::power_off();
}
