//! Tables for made-up hosts.
