// Command oracle writes ../hpa.json: cases, and what Kubernetes' own replica
// calculator answers to them. It is a module of its own, because Kubernetes is no
// dependency of Fairlead. Run it with: go run . > ../hpa.json
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"time"
	"unsafe"

	autoscaling "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

type pod struct {
	Phase   string `json:"phase"` // "pending", "running", "failed"
	Deleted bool   `json:"deleted,omitempty"`
	Ready   bool   `json:"ready,omitempty"`
	Started int    `json:"started"` // seconds ago
	Changed int    `json:"changed"` // seconds since it became ready, or not ready
	Request int64  `json:"request"`
	Sample  bool   `json:"sample,omitempty"`
	Use     int64  `json:"use,omitempty"`
	Age     int    `json:"age,omitempty"` // of the sample
	Window  int    `json:"window,omitempty"`
}

type testCase struct {
	Resource    string `json:"resource"`
	Current     int    `json:"current"`
	Target      int    `json:"target"`
	Pods        []pod  `json:"pods"`
	Replicas    int    `json:"replicas"`
	Utilisation int    `json:"utilisation"`
	Error       string `json:"error,omitempty"`
}

// source is a metrics client that knows the samples of one case.
type source struct{ info metrics.PodMetricsInfo }

func (s source) GetResourceMetric(context.Context, v1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	return s.info, time.Now(), nil
}

func (source) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, nil
}

func (source) GetObjectMetric(string, string, *autoscaling.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, nil
}

func (source) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	return nil, time.Time{}, nil
}

func main() {
	r := rand.New(rand.NewPCG(1, 2))
	var out []testCase
	for range 600 {
		out = append(out, answer(generate(r)))
	}
	enc := json.NewEncoder(os.Stdout)
	fmt.Print("[\n")
	for i, c := range out {
		if i > 0 {
			fmt.Print(",")
		}
		if err := enc.Encode(c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("]")
}

func generate(r *rand.Rand) testCase {
	c := testCase{Resource: []string{"cpu", "cpu", "memory"}[r.IntN(3)], Target: []int{30, 50, 70, 80, 100, 150}[r.IntN(6)]}
	level := r.IntN(260) // percent of the request that pods use, more or less
	rough := r.IntN(4) == 0
	for range r.IntN(9) {
		p := pod{
			Phase: "running", Ready: r.IntN(8) > 0, Request: int64(50 + 10*r.IntN(20)), Sample: r.IntN(8) > 0,
			Age: 1 + r.IntN(20), Window: []int{10, 15, 30}[r.IntN(3)],
		}
		p.Use = p.Request * int64(max(0, level+r.IntN(21)-10)) / 100
		if r.IntN(3) == 0 { // within the start-up: away from the edge, which moves while this runs
			p.Started = 5 + r.IntN(240)
		} else {
			p.Started = 360 + r.IntN(5000)
		}
		p.Changed = r.IntN(p.Started)
		if rough {
			p.Phase = []string{"pending", "running", "running", "failed"}[r.IntN(4)]
			p.Deleted = r.IntN(6) == 0
		}
		if r.IntN(10) == 0 {
			p.Phase = "pending"
		}
		if !p.Ready && r.IntN(2) == 0 {
			p.Changed = p.Started - r.IntN(min(p.Started, 60)) // never ready
		}
		if p.Phase != "running" {
			p.Ready = false
		}
		if !p.Sample {
			p.Use, p.Age, p.Window = 0, 0, 0
		}
		c.Pods = append(c.Pods, p)
	}
	c.Current = max(1, len(c.Pods)+r.IntN(5)-2)
	return c
}

func answer(c testCase) testCase {
	now := time.Now()
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	name := v1.ResourceName(c.Resource)
	info := metrics.PodMetricsInfo{}
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for i, p := range c.Pods {
		id := fmt.Sprint("pod-", i)
		started := metav1.NewTime(ago(p.Started))
		ready := v1.ConditionFalse
		if p.Ready {
			ready = v1.ConditionTrue
		}
		request := *apiresource.NewMilliQuantity(p.Request, apiresource.DecimalSI)
		k := &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: id, Namespace: "ns", Labels: map[string]string{"a": "b"}},
			Spec:       v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{name: request}}}}},
			Status: v1.PodStatus{
				Phase: map[string]v1.PodPhase{"pending": v1.PodPending, "running": v1.PodRunning, "failed": v1.PodFailed}[p.Phase], StartTime: &started,
				Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: ready, LastTransitionTime: metav1.NewTime(ago(p.Changed))}},
			},
		}
		if p.Deleted {
			k.DeletionTimestamp = &started
		}
		if err := index.Add(k); err != nil {
			panic(err)
		}
		if p.Sample {
			info[id] = metrics.PodMetric{Timestamp: ago(p.Age), Window: time.Duration(p.Window) * time.Second, Value: p.Use}
		}
	}
	calc := podautoscaler.NewReplicaCalculator(source{info}, corelisters.NewPodLister(index), 5*time.Minute, 30*time.Second)
	selector := labels.SelectorFromSet(labels.Set{"a": "b"})
	n, percent, _, _, err := calc.GetResourceReplicas(context.Background(), int32(c.Current), int32(c.Target), name, tolerances(), "ns", selector, "")
	c.Replicas, c.Utilisation = int(n), int(percent)
	if err != nil {
		c.Error = err.Error()
	}
	return c
}

// tolerances are Kubernetes' default, 10 % either way. Its type hides its fields.
func tolerances() podautoscaler.Tolerances {
	var t podautoscaler.Tolerances
	v := reflect.ValueOf(&t).Elem()
	for i := range v.NumField() {
		*(*float64)(unsafe.Pointer(v.Field(i).UnsafeAddr())) = 0.1
	}
	return t
}
