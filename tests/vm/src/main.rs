//! `guest`: process 1 of a test guest. Starts one watcher per method, provokes each fault once, judges every watcher on
//! it, prints one verdict on the serial console and powers the machine off.
//!
//! What the host reads: `CASE <name> <method> ok|FAIL <reason>` and, last, `VERDICT passed=<n> failed=<n>`. The method
//! `kernel` stands for the kernel's own counts, so that a wrong provocation does not look like a wrong watcher.

mod case;
mod init;
mod judge;
mod kube;
mod line;
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
