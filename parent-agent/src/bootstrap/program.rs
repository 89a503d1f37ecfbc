//! The instance's programs.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long a program may take that need not wait for an enclave.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);

/// Runs a program, found on `PATH`, to its end.
pub(super) fn run(
    runtime: &Runtime,
    program: &str,
    arguments: &[&str],
    limit: Duration,
) -> Result<(), String> {
    let command = format!("{program} {}", arguments.join(" "));
    let ended = runtime.block_on(async {
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(limit, output).await
    });
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("`{command}` cannot be run: {error}")),
        Err(_) => {
            let seconds = limit.as_secs();
            return Err(format!("`{command}` did not end within {seconds} s"));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let words: Vec<_> = stderr.split_whitespace().collect();
    let (status, words) = (output.status, words.join(" "));
    Err(format!("`{command}` failed ({status}): {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        run(&runtime, "sh", &["-c", "echo a"], TIMEOUT).unwrap();
        let error = run(&runtime, "sh", &["-c", "echo why >&2; exit 3"], TIMEOUT).unwrap_err();
        assert!(
            error.contains("exit status: 3") && error.ends_with("why"),
            "{error}"
        );
        let error = run(&runtime, "/nonexistent", &[], TIMEOUT).unwrap_err();
        assert!(error.contains("cannot be run"), "{error}");
        let error = run(&runtime, "sleep", &["60"], Duration::from_millis(1)).unwrap_err();
        assert!(error.contains("did not end within"), "{error}");
    }
}
