//! Host names, resolved as everywhere in the agent: glibc's resolver does not
//! work in a static binary.

use std::sync::Arc;

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use hickory_resolver::TokioResolver;

use crate::resolve;

/// A resolver for HTTP clients.
#[derive(Debug, Clone)]
pub(crate) struct Names(Arc<Result<TokioResolver, String>>);

impl Names {
    pub(crate) fn from_system() -> Self {
        Self(Arc::new(resolve::system()))
    }
}

impl ResolveDns for Names {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let resolver = self
                .0
                .as_ref()
                .as_ref()
                .map_err(|reason| ResolveDnsError::new(reason.clone()))?;
            let found = resolver
                .lookup_ip(name)
                .await
                .map_err(ResolveDnsError::new)?;
            Ok(found.iter().collect())
        })
    }
}
