//! The metrics of `netdev`: /proc/net/dev for each device and summed for each namespace.

use crate::os::link::DeviceKind;
use netsonde_framework::label::Device;

netsonde_framework::metrics! {
    /// Bytes that the devices of the namespace received (on the host: the physical ones; elsewhere: all but the loopback).
    RX_BYTES: Counter<()> = "netdev_rx_bytes".reference("kubeskoop_netdev_rxbytes").source("/proc/net/dev Receive bytes");
    /// Packets that the devices of the namespace received (on the host: the physical ones; elsewhere: all but the loopback).
    RX_PACKETS: Counter<()> = "netdev_rx_packets".reference("kubeskoop_netdev_rxpackets").source("/proc/net/dev Receive packets");
    /// Packets with errors that the devices of the namespace received (on the host: the physical ones; elsewhere: all but the loopback).
    RX_ERRORS: Counter<()> = "netdev_rx_errors".reference("kubeskoop_netdev_rxerrors").source("/proc/net/dev Receive errs");
    /// Received packets that the devices of the namespace dropped (on the host: the physical ones; elsewhere: all but the loopback).
    RX_DROPPED: Counter<()> = "netdev_rx_dropped".reference("kubeskoop_netdev_rxdropped").source("/proc/net/dev Receive drop");
    /// Bytes that the devices of the namespace sent (on the host: the physical ones; elsewhere: all but the loopback).
    TX_BYTES: Counter<()> = "netdev_tx_bytes".reference("kubeskoop_netdev_txbytes").source("/proc/net/dev Transmit bytes");
    /// Packets that the devices of the namespace sent (on the host: the physical ones; elsewhere: all but the loopback).
    TX_PACKETS: Counter<()> = "netdev_tx_packets".reference("kubeskoop_netdev_txpackets").source("/proc/net/dev Transmit packets");
    /// Packets that the devices of the namespace could not send (on the host: the physical ones; elsewhere: all but the loopback).
    TX_ERRORS: Counter<()> = "netdev_tx_errors".reference("kubeskoop_netdev_txerrors").source("/proc/net/dev Transmit errs");
    /// Packets that the devices of the namespace dropped instead of sending (on the host: the physical ones; elsewhere: all but the loopback).
    TX_DROPPED: Counter<()> = "netdev_tx_dropped".reference("kubeskoop_netdev_txdropped").source("/proc/net/dev Transmit drop");
    /// Bytes that the device received.
    DEVICE_RX_BYTES: Counter<(Device, DeviceKind)> = "netdev_device_rx_bytes".source("/proc/net/dev Receive bytes");
    /// Packets that the device received.
    DEVICE_RX_PACKETS: Counter<(Device, DeviceKind)> = "netdev_device_rx_packets".source("/proc/net/dev Receive packets");
    /// Received packets that were in error: wrong length, checksum or frame, or too many at once.
    DEVICE_RX_ERRORS: Counter<(Device, DeviceKind)> = "netdev_device_rx_errors".source("/proc/net/dev Receive errs");
    /// Received packets that were dropped because no one wanted them or there was no room (rx_dropped and rx_missed_errors).
    DEVICE_RX_DROPPED: Counter<(Device, DeviceKind)> = "netdev_device_rx_dropped".source("/proc/net/dev Receive drop");
    /// Bytes that the device sent.
    DEVICE_TX_BYTES: Counter<(Device, DeviceKind)> = "netdev_device_tx_bytes".source("/proc/net/dev Transmit bytes");
    /// Packets that the device sent.
    DEVICE_TX_PACKETS: Counter<(Device, DeviceKind)> = "netdev_device_tx_packets".source("/proc/net/dev Transmit packets");
    /// Packets that could not be sent.
    DEVICE_TX_ERRORS: Counter<(Device, DeviceKind)> = "netdev_device_tx_errors".source("/proc/net/dev Transmit errs");
    /// Packets that were dropped on their way out.
    DEVICE_TX_DROPPED: Counter<(Device, DeviceKind)> = "netdev_device_tx_dropped".source("/proc/net/dev Transmit drop");
    /// Received packets that found the fifo of a physical device full (rx_fifo_errors).
    DEVICE_RX_FIFO: Counter<(Device, DeviceKind)> = "netdev_device_rx_fifo".source("/proc/net/dev Receive fifo");
    /// Packets that a physical device received with a wrong length, checksum or alignment, or that overran its ring (rx_length, over, crc and frame errors).
    DEVICE_RX_FRAME: Counter<(Device, DeviceKind)> = "netdev_device_rx_frame".source("/proc/net/dev Receive frame");
    /// Multicast packets that a physical device received.
    DEVICE_RX_MULTICAST: Counter<(Device, DeviceKind)> = "netdev_device_rx_multicast".source("/proc/net/dev Receive multicast");
    /// Packets that a physical device could not send because its fifo ran dry (tx_fifo_errors).
    DEVICE_TX_FIFO: Counter<(Device, DeviceKind)> = "netdev_device_tx_fifo".source("/proc/net/dev Transmit fifo");
    /// Packets that a physical device could not send because the carrier was lost or the transmission was given up (tx_carrier, aborted, window and heartbeat errors).
    DEVICE_TX_CARRIER: Counter<(Device, DeviceKind)> = "netdev_device_tx_carrier".source("/proc/net/dev Transmit carrier");
    /// Whether the device is set up and can carry packets: 1, else 0.
    DEVICE_UP: Gauge<(Device, DeviceKind)> = "netdev_device_up".source("SIOCGIFFLAGS IFF_UP and IFF_RUNNING");
    /// The largest packet that the device sends, in bytes, without the link layer's header.
    DEVICE_MTU_BYTES: Gauge<(Device, DeviceKind)> = "netdev_device_mtu_bytes".source("SIOCGIFMTU");
}
