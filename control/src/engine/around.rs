//! What is configured beside canaries.

use std::collections::BTreeMap;
use std::sync::Arc;

use wingbeat_api::RefusedFileView;
use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::model::{Listener, ModelFront};

/// What is configured beside canaries.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Where the Envoys listen.
    pub(super) listeners: Vec<Listener>,
    /// The filter's module.
    pub(super) filter: Option<Arc<[u8]>>,
    /// Which file a canary is from, where it is from one.
    pub(super) files: BTreeMap<CanaryName, Arc<str>>,
    /// Files whose present text is wrong, in the order of their names.
    pub(super) refused_files: Arc<[RefusedFileView]>,
}

impl Around {
    /// Returns what all hosts share.
    pub(super) fn front(&self) -> ModelFront {
        ModelFront { listeners: self.listeners.clone(), filter: self.filter.clone() }
    }

    /// Returns the file that a canary is from, if what that says now was refused.
    pub(super) fn refused(&self, name: &CanaryName) -> Option<&RefusedFileView> {
        let file = self.files.get(name)?;
        let place = self.refused_files.binary_search_by(|refused| refused.file.as_str().cmp(file)).ok()?;
        self.refused_files.get(place)
    }
}
