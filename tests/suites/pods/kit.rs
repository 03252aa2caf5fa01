//! The kit's containerd does what kubelet asks of one.

use netsonde_tests::containerd::{Container, Pod};
use netsonde_tests::{Containerd, images, needs_programs, needs_root, until};
use std::time::Duration;

#[test]
fn a_sandbox_has_addresses_and_its_container_runs_with_what_it_was_given() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start();
    let client = containerd.connect();
    let mut events = client.wait(client.channel().containerd_tasks()).expect("containerd has events");
    let sandbox = client.run(&Pod::new("shop", "cart-0"));
    let event = client.wait(events.next()).expect("no error").expect("an event");
    assert_eq!(event.topic, "/tasks/start");
    assert_eq!(sandbox.addresses.len(), 2, "{sandbox:?}");
    let code = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(int n, char **words) {
            printf("%s %s %d\n", words[1], getenv("COLOUR"), (int) getuid());
            fflush(stdout);
            for (;;) pause();
        }"#;
    let image = images::static_program("netsonde.test/say:1", code).env("COLOUR", "red").user("7:7");
    containerd.import(&image);
    let container = Container::new("say", image.name()).args(&["hello"]).readonly();
    let id = client.start(&sandbox, &container);
    until("the container speaks", Duration::from_secs(5), || {
        client.container_log(&sandbox, &container).contains("hello red 7").then_some(())
    });
    assert!(client.container_pid(&id) > 1);
    assert_eq!(client.container_ended(&id), None);
    client.remove(&sandbox.id);
}
