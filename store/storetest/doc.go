// Package storetest is the one conformance suite that every store passes.
//
// What it asserts is what the rest of Fairlead relies on, so that a test with
// store.Memory means something for etcd.
package storetest
