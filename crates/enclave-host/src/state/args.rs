//! The argument that names the folder.

use std::path::PathBuf;

use clap::Args;

const STATE_DIR_HELP: &str = "The folder of all enclaves' sockets \
[default: $XDG_RUNTIME_DIR/enclaves; for root /run/enclaves; otherwise /tmp/enclaves-UID]";

/// Where enclaves' folders are.
#[derive(Debug, Args)]
pub struct StateArgs {
    #[arg(long, value_name = "DIR", help = STATE_DIR_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub state_dir: Option<PathBuf>,
}
