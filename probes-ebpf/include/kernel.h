/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few kernel types that the probes read, with only the fields that they read. Offsets are filled in at load time
 * from the running kernel's BTF (CO-RE), so nothing here is a layout. */
#ifndef NETSONDE_KERNEL_H
#define NETSONDE_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#define IPPROTO_SCTP 132
#define SOCK_DGRAM 2
#define RCV_SHUTDOWN 1
/* A port that bind() named. */
#define SOCK_BINDPORT_LOCK 8
#define MSG_PEEK 0x2
#define MSG_ERRQUEUE 0x2000

/* sk_state, as in linux/bpf.h (BPF_TCP_*). */
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

enum sock_flags {
	SOCK_DONE = 1,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	possible_net_t nd_net;
	char name[16];
	int ifindex;
};

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	__u16 skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	unsigned long skc_flags;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct refcount_struct {
	atomic_t refs;
} refcount_t;

struct sk_buff;

struct sk_buff_head {
	__u32 qlen;
	struct sk_buff *prev;
};

typedef struct {
	int owned;
} socket_lock_t;

struct socket;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	struct socket *sk_socket;
	__u16 sk_type;
	/* Of a listening socket: the connections that wait for accept(), and the length above which it takes no more. */
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	atomic_t sk_drops;
	__u8 sk_shutdown;
	__u8 sk_userlocks : 4;
	struct sk_buff_head sk_receive_queue;
	socket_lock_t sk_lock;
	__u8 sk_kern_sock : 1;
};

struct socket {
	struct sock *sk;
};

struct inet_sock {
	__be16 inet_sport;
};

struct request_sock_queue {
	atomic_t qlen;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	__u8 icsk_ca_state : 5;
	__u8 icsk_retransmits;
	__u8 icsk_pending;
};

struct tcp_sock {
	__u32 srtt_us;
	__u32 snd_cwnd;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_nxt;
	__u32 write_seq;
};

struct udp_sock {
	struct sk_buff_head reader_queue;
};

union flowi_uli {
	struct {
		__be16 dport;
		__be16 sport;
	} ports;
};

struct flowi4 {
	__be32 saddr;
	__be32 daddr;
	union flowi_uli uli;
};

struct flowi6 {
	struct in6_addr daddr;
	struct in6_addr saddr;
	union flowi_uli uli;
};

struct inet_cork {
	__u16 gso_size;
};

struct request_sock {
	struct sock_common __req_common;
	__u8 num_timeout : 7;
};

struct rtable {
	__u16 rt_type;
};

struct rt6_info {
	__u32 rt6i_flags;
};

struct tcp_request_sock {
	__u32 snt_isn;
};

struct sk_buff {
	unsigned long _skb_refdst;
	/* The connection (struct nf_conn) and, in its low bits, how the packet belongs to it. */
	unsigned long _nfct;
	struct net_device *dev;
	struct sock *sk;
	unsigned char *head;
	unsigned char *data;
	unsigned int len;
	int skb_iif;
	__be16 protocol;
	__u16 network_header;
	__u16 transport_header;
	char cb[48];
	__u16 mac_header;
	refcount_t users;
	__s64 tstamp;
	__u8 tstamp_type : 2;
	struct sk_buff *next;
	unsigned int end;
	__u32 hash;
};

struct skb_shared_info {
	unsigned short gso_size;
};

struct Qdisc_ops {
	char id[16];
};

struct Qdisc {
	unsigned int flags;
	const struct Qdisc_ops *ops;
};

struct netdev_queue {
	struct net_device *dev;
};

struct napi_struct {
	struct net_device *dev;
};

struct irqaction {
	const char *name;
};

struct pid_namespace {
	struct task_struct *child_reaper;
	struct pid_namespace *parent;
};

/* What TCP keeps in skb->cb. */
struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
};

struct nsproxy {
	struct net *net_ns;
	struct pid_namespace *pid_ns_for_children;
};

struct task_struct {
	unsigned int flags;
	struct nsproxy *nsproxy;
	int pid;
	int tgid;
	struct task_struct *group_leader;
	char comm[16];
};

union nf_inet_addr {
	__u32 all[4];
};

union nf_conntrack_man_proto {
	__be16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	__u16 l3num;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		__u8 protonum;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

/* First the way of who began the connection, then the way back. */
struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
};

struct gendisk {
	char disk_name[32];
};

struct request_queue {
	struct gendisk *disk;
};

struct bio;

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	struct bio *bio;
	__u64 start_time_ns;
	__u64 io_start_time_ns;
	struct {
		unsigned int seq;
	} flush;
	void *end_io;
};

#pragma clang attribute pop

#endif
