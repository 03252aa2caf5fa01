//! Pods with the node's network: they have descriptors and I/O of their own, and nothing of the namespace.

use std::fs;
use std::time::Duration;

use netsonde_tests::containerd::{Container, Pod, Sandbox};
use netsonde_tests::{Containerd, images, needs_programs, needs_root, until};

use super::{agent, pod};

const KEPT_OPEN: usize = 37;
const WRITTEN: u64 = 12_345_678;

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn two_pods_with_the_nodes_network_have_their_own_descriptors_and_bytes() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start_on_host();
    let code = format!(
        r#"#include <fcntl.h>
        #include <unistd.h>
        int main(void) {{
            static char bytes[{WRITTEN}];
            for (int n = 0; n < {KEPT_OPEN}; n++) open("/dev/null", O_WRONLY);
            sleep(3);
            write(3, bytes, sizeof bytes);
            for (;;) pause();
        }}"#
    );
    let image = images::static_program("netsonde.test/worker:1", &code);
    containerd.import(&image);
    let agent = agent(&containerd, "probes: [fd, io, tcp]\n");
    let client = containerd.client();
    let run = |name: &str| -> (Sandbox, u32) {
        let sandbox = containerd.run(&Pod::new("kube-system", name).host_network());
        assert_eq!((sandbox.addresses.len(), &sandbox.netns), (0, &None));
        let id = client.start(&sandbox, &Container::new("worker", image.name()));
        let pid = client.container_pid(&id);
        (sandbox, pid)
    };
    let pods = [run("proxy-a"), run("proxy-b")];
    let page = until("both have written", Duration::from_secs(20), || {
        let page = agent.scrape();
        let wrote = |name: &str| {
            let pod = page.pod(name);
            pod.find("netsonde_io_syscall_write_bytes_total", &[("target_namespace", "kube-system")])
        };
        ["proxy-a", "proxy-b"].iter().all(|name| wrote(name) >= Some(WRITTEN as f64)).then_some(page)
    });
    let status = agent.status();
    for (sandbox, pid) in &pods {
        let name = &*sandbox.pod.name;
        let row = pod(&status, "kube-system", name).expect("it has series");
        assert_eq!((&row["processes"], &row["uid"]), (&2.into(), &sandbox.pod.uid.clone().into()));
        let open = descriptors(sandbox.pid) + descriptors(*pid);
        assert!(open > KEPT_OPEN);
        assert_eq!(page.pod(name).count("netsonde_fd_open", &[]), open as u64);
        let wrote = page.pod(name).count("netsonde_io_syscall_write_bytes_total", &[]);
        assert!(wrote < 2 * WRITTEN, "{wrote}");
        // What is counted by namespace is the host's alone.
        assert_eq!(page.pod(name).find("netsonde_tcp_active_opens_total", &[]), None);
    }
    assert_eq!(page.count("netsonde_pods", &[("network", "host")]), 2);
    assert_eq!(page.count("netsonde_pods_unmatched", &[]), 0);

    // One that ends takes its row with it, and leaves the other's as it is.
    let (first, second) = (&pods[0], &pods[1]);
    client.remove(&first.0.id);
    until("its row is gone", Duration::from_secs(3), || (!agent.scrape().knows("proxy-a")).then_some(()));
    let page = agent.scrape();
    let open = descriptors(second.0.pid) + descriptors(second.1);
    assert_eq!(page.pod("proxy-b").count("netsonde_fd_open", &[]), open as u64);
    agent.stop();
}
