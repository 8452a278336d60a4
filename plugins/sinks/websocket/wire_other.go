//go:build !linux

package websocket

import (
	"net"
	"syscall"
)

// backendOf returns the backend for the connections of a listener.
func backendOf(net.Listener) backend { return goroutines{} }

// setSocketOptions leaves a listener as it is: what package net and the gate set
// on connections has to do.
func setSocketOptions(string, string, syscall.RawConn) error { return nil }
