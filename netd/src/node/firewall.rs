//! The firewall's tables, and the addresses on which host ports are.

use super::{core::Node, error::Result, queue::Target};

impl Node {
    pub(super) async fn repair_firewall(&self) -> Result<()> {
        let state = self.state.clone();
        match self.dataplane.replace_firewall(move || state.firewall()).await {
            Ok(repairs) => {
                self.health.good("firewall");
                self.count(&"firewall", &Target::Firewall, &repairs, true);
                Ok(())
            }
            Err(error) => {
                self.health.bad("firewall", &error);
                Err(error.into())
            }
        }
    }

    pub(super) async fn follow_host_addresses(&self) -> Result<()> {
        self.dataplane.follow_host_addresses().await?;
        self.report_host_pools().await
    }
}
