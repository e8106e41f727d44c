//! The device's own row: keys, registration, name. As JSON, since the library's key pair does not
//! survive formats that tell bytes from sequences.

use async_trait::async_trait;
use wacore::stats::StorageResourceReport;
use wacore::store::Device;
use wacore::store::traits::DeviceStore;
use wagate_store::device_state;

use super::{Result, SessionBackend, from_json, kind, to_json};

const DEVICE: &str = "device";

#[async_trait]
impl DeviceStore for SessionBackend {
    async fn save(&self, device: &Device) -> Result<()> {
        self.put_one(kind::DEVICE, DEVICE.to_owned(), to_json(device)?)
            .await
    }

    async fn load(&self) -> Result<Option<Device>> {
        let value = self.get_one(kind::DEVICE, DEVICE).await?;
        value.as_deref().map(from_json).transpose()
    }

    async fn exists(&self) -> Result<bool> {
        self.rows
            .read(|tx, session| device_state::exists(tx, session, kind::DEVICE))
            .await
    }

    /// Nothing is written: a device that was never linked has nothing worth keeping, and the first
    /// change is saved.
    async fn create(&self) -> Result<i32> {
        Ok(1)
    }

    async fn resource_report(&self) -> StorageResourceReport {
        StorageResourceReport::default()
    }
}
