package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// node is what this process knows: its name and the containers it runs.
type node struct {
	name   string
	root   string
	client kubernetes.Interface

	mutex      sync.Mutex
	containers map[string]*container // by containerKey
	pods       sync.Map              // UID of every pod that was started or is being started
}

func containerKey(namespace, pod, name string) string {
	return namespace + "/" + pod + "/" + name
}

func (n *node) container(namespace, pod, name string) *container {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.containers[containerKey(namespace, pod, name)]
}

// register creates the node and says where its kubelet listens.
func (n *node) register(ctx context.Context, port int) error {
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	created, err := n.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		created, err = n.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("register the node: %w", err)
	}
	now := metav1.Now()
	created.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	created.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	created.Status.NodeInfo.KubeletVersion = "v1.36.3"
	created.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	_, err = n.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

// watch follows the pods bound to this node until ctx ends.
func (n *node) watch(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(n.client, 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", n.name).String()
		}))
	informer := factory.Core().V1().Pods().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { n.see(ctx, object) },
		UpdateFunc: func(_, object any) { n.see(ctx, object) },
		DeleteFunc: func(object any) {
			if pod, ok := object.(*corev1.Pod); ok {
				n.stop(pod)
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	return ctx.Err()
}

func (n *node) see(ctx context.Context, object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	if pod.DeletionTimestamp != nil {
		n.stop(pod)
		now := int64(0)
		err := n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now,
			Preconditions:      &metav1.Preconditions{UID: &pod.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			log.Printf("confirm the deletion of %s/%s: %v", pod.Namespace, pod.Name, err)
		}
		return
	}
	if _, known := n.pods.LoadOrStore(pod.UID, true); !known {
		go n.start(ctx, pod.DeepCopy())
	}
}

// start runs every container of a pod and reports the pod as running, then as ended.
func (n *node) start(ctx context.Context, pod *corev1.Pod) {
	started := metav1.Now()
	running := []*container{}
	for _, spec := range pod.Spec.Containers {
		directory := filepath.Join(n.root, pod.Namespace, pod.Name, spec.Name)
		container, err := startContainer(directory, &spec, pod)
		if err != nil {
			log.Printf("start %s/%s/%s: %v", pod.Namespace, pod.Name, spec.Name, err)
			n.report(ctx, pod, corev1.PodFailed, started, running)
			return
		}
		n.mutex.Lock()
		n.containers[containerKey(pod.Namespace, pod.Name, spec.Name)] = container
		n.mutex.Unlock()
		running = append(running, container)
	}
	n.report(ctx, pod, corev1.PodRunning, started, running)
	phase := corev1.PodSucceeded
	for _, container := range running {
		<-container.ended
		if container.code != 0 {
			phase = corev1.PodFailed
		}
	}
	n.report(ctx, pod, phase, started, running)
}

func (n *node) stop(pod *corev1.Pod) {
	for _, spec := range pod.Spec.Containers {
		key := containerKey(pod.Namespace, pod.Name, spec.Name)
		n.mutex.Lock()
		container := n.containers[key]
		if container != nil && container.pod == pod.UID {
			delete(n.containers, key)
		} else {
			container = nil
		}
		n.mutex.Unlock()
		if container != nil {
			container.kill()
		}
	}
}

func (n *node) report(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase, started metav1.Time, containers []*container) {
	ready := corev1.ConditionFalse
	if phase == corev1.PodRunning {
		ready = corev1.ConditionTrue
	}
	status := corev1.PodStatus{
		Phase: phase, HostIP: "127.0.0.1", PodIP: "127.0.0.1",
		PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}}, StartTime: &started,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: started},
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: started},
			{Type: corev1.ContainersReady, Status: ready, LastTransitionTime: metav1.Now()},
			{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()},
		},
	}
	for _, container := range containers {
		status.ContainerStatuses = append(status.ContainerStatuses, container.status(started))
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		log.Printf("encode the status of %s/%s: %v", pod.Namespace, pod.Name, err)
		return
	}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = n.client.CoreV1().Pods(pod.Namespace).Patch(bounded, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("report %s/%s as %s: %v", pod.Namespace, pod.Name, phase, err)
	}
}
