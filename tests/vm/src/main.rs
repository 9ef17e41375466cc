//! `guest`: process 1 of a test guest. Starts watchers, provokes each fault once, judges every watcher on it, prints one
//! verdict on the serial console and powers the machine off.
//!
//! What the host reads: `CASE <name> <method> ok|FAIL <reason>`, `DOCTOR <JSON>` and, last, `VERDICT passed=<n>
//! failed=<n>`. The method `kernel` stands for the kernel's own word, so that a wrong provocation does not look like a
//! wrong watcher.

mod alone;
mod complaint;
mod container;
mod hang;
mod init;
mod kmsg;
mod kube;
mod line;
mod oom;
mod parameters;
mod report;
mod run;
mod watcher;

fn main() {
    let outcome = init::prepare().and_then(|()| run::all());
    if let Err(cause) = outcome {
        println!("GUEST {cause:#}");
    }
    init::power_off();
}
