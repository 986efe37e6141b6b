//! Arguments of `alitok weights`.

use std::path::PathBuf;

use clap::Subcommand;

/// Prepare the weights of public networks that training and evaluation use
#[derive(Debug, Subcommand)]
pub(crate) enum WeightsVerb {
    /// Download the weights of public networks, or take them from a file
    #[command(after_help = "Examples:
  alitok weights fetch convnext-small vgg16 lpips-vgg
  alitok weights fetch inception --from pt_inception-2015-12-05-6726825d.pth

Files go to the folder `weights` below ALITOK_HOME if that is set, else to the user's cache. A
download that broke goes on where it was.")]
    Fetch {
        /// Which; `alitok weights list` names them.
        #[arg(required = true)]
        names: Vec<String>,
        /// A file that is here already.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Another address than the publisher's.
        #[arg(long, conflicts_with = "from")]
        url: Option<String>,
    },
    /// List the public weights, where they come from and which are here
    List,
}
