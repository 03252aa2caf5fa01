//! This machine's name.

/// `node_name` of the configuration, else `NODE_NAME` of the environment (as a DaemonSet sets it), else the
/// kernel's host name.
pub fn name(configured: Option<&str>) -> String {
    configured
        .map(str::to_owned)
        .or_else(|| std::env::var("NODE_NAME").ok().filter(|n| !n.is_empty()))
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}
