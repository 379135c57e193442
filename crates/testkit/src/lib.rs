//! Test support: real control planes, scripted API servers, links with latency and cuts, a header-checking client.
