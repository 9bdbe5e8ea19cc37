//! `qtrace record`: one file per source, and what those that run a command have in common.

mod blk;
pub mod common;
mod machine;
mod nbd;
mod qemu;
mod served_image;
mod vhost_user_blk;

use clap::Subcommand;

use crate::base::Result;

const EXAMPLES: &str = "\
Examples:
  qtrace record nbd --image d.qcow2 -o t.qtrace -- qemu-img bench -f raw {uri}
  qtrace record nbd --image d.raw -o t.qtrace --socket /tmp/d.sock
  qtrace record qemu -o t.qtrace --block --bus -- qemu-system-x86_64 -drive file=d.qcow2,if=virtio
  qtrace record vhost-user-blk --image d.raw -o t.qtrace --socket /tmp/d.sock
  qtrace record blk --device /dev/loop0 -o t.qtrace -- mkfs.ext4 /dev/loop0
  qtrace record machine -o rtc.qtrace --test rtc/drift hz=1024
  qtrace record machine -o blk.qtrace --machine qemu --test virtio-blk/resize";

/// Arguments of `qtrace record`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    /// What is recorded.
    #[command(subcommand)]
    pub source: Source,
}

impl Args {
    /// Whether a device test is run.
    pub(super) fn is_test(&self) -> bool {
        matches!(self.source, Source::Machine(_))
    }
}

/// What can be recorded.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// What a device test does to its machine, and what the machine answers.
    Machine(machine::Args),
    /// An NBD server in front of an image: whatever its clients do.
    Nbd(nbd::Args),
    /// A QEMU of yours: requests to its drives, accesses to its devices.
    Qemu(qemu::Args),
    /// A vhost-user-blk disk for a VMM's guest: whatever the guest does with it.
    VhostUserBlk(vhost_user_blk::Args),
    /// A block device of this machine, by the kernel's tracer.
    Blk(blk::Args),
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the source from being recorded.
pub fn run(args: &Args) -> Result<u8> {
    match &args.source {
        Source::Machine(args) => machine::run(args),
        Source::Nbd(args) => nbd::run(args),
        Source::Qemu(args) => qemu::run(args),
        Source::VhostUserBlk(args) => vhost_user_blk::run(args),
        Source::Blk(args) => blk::run(args),
    }
}
