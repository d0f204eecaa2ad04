// Package lab runs a cluster of real nodes on one Linux machine: to try things,
// to teach, and to test Fairlead itself.
//
// A lab is one process, the rack, which is the first of a process namespace with
// a network and mounts of its own. In that network is the switch. Each node is a
// machine: again the first process of namespaces of its own, with a link to the
// switch, that runs a Docker engine and Fairlead as an init system would. What a
// lab is made of is decided by pure functions (Spec.Machines, Units, Plan,
// SwitchRules); the rack's loop carries it out.
//
// Invariants:
//   - Nothing is made in the network or the mounts of the machine itself: with the
//     rack's end the kernel ends all processes of the lab, and with them its
//     links, rules and mounts are gone. What stays is one directory, and control
//     groups named after it: Down needs no record of what was made. What is the
//     kernel's and not a network's, the module br_netfilter, is switched off in the
//     machine's own network before a node starts.
//   - A directory is a lab's if it has the mark, which comes into being with it in one
//     step and goes last. No other is used or removed.
//   - The state file is written before what it says is made.
//   - The power of a machine is its first process: killing it is pulling the plug.
package lab
