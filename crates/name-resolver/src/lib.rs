//! Resolves host names as the host is configured: by the name servers in
//! `/etc/resolv.conf` and the names in `/etc/hosts`.
//!
//! glibc's resolver does not work in a static binary. Whatever such a program connects
//! to, it looks up here: with [`System`], or with [`Names`] where an HTTP client wants a
//! resolver. Addresses of IPv4 are asked for first, those of IPv6 only where a name has
//! none. The limits are those of `resolv.conf` (`timeout`, `attempts`); callers set their
//! own for the whole.

#![forbid(unsafe_code)]

mod system;

use std::sync::Arc;

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

pub use system::System;

/// A resolver with the system's configuration as it is now, or why there is none.
pub fn system() -> Result<TokioResolver, String> {
    System::default().resolver()
}

/// A resolver with a configuration of its own, or why there is none.
pub fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options);
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build().map_err(|error| error.to_string())
}

/// The system's resolver, for HTTP clients. Clones share it. Without a configuration
/// every lookup fails, and says why.
#[derive(Debug, Clone)]
pub struct Names(Arc<System>);

impl Names {
    /// The resolver of [`System`].
    pub fn from_system() -> Self {
        Self(Arc::default())
    }
}

impl ResolveDns for Names {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let resolver = self.0.resolver().map_err(ResolveDnsError::new)?;
            let found = resolver
                .lookup_ip(name)
                .await
                .map_err(ResolveDnsError::new)?;
            Ok(found.iter().collect())
        })
    }
}
