//! Control plane of the security-group enforcer.
