//! A fid as a value.

use std::sync::Arc;

use super::rpc::Rpc;

/// A file of the server. Dropping it gives it back, some time later and together with others; [`super::Client::clunk`]
/// does so at once and tells of errors.
#[derive(Debug)]
pub struct Fid {
    rpc: Arc<Rpc>,
    number: u32,
    /// The server knows it no longer: nothing to give back but the number.
    gone: bool,
}

impl Fid {
    pub(super) fn new(rpc: &Arc<Rpc>, number: u32) -> Self {
        Self { rpc: rpc.clone(), number, gone: false }
    }

    /// Its number on the wire.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Ends the value without giving the fid back: the server knows it no longer.
    pub(super) fn forget(mut self) {
        self.gone = true;
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        if self.gone {
            self.rpc.unused_fid(self.number);
        } else {
            self.rpc.drop_fid(self.number);
        }
    }
}
